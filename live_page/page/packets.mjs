/** The 32 bytes before every picture; see PROTOCOL.md. Little-endian. */
export const HEADER_BYTES = 32;
export const VERSION = 1;
export const KIND = Object.freeze({ jpeg: 1, h264Key: 2, h264Delta: 3 });
export const FLAG = Object.freeze({ warmingUp: 1, ofOthers: 2, last: 4 });

/** One message: the header of a frame that this client sends, then its picture. */
export function pack({ kind, sequence, captured }, picture) {
  const message = new Uint8Array(HEADER_BYTES + picture.byteLength);
  const header = new DataView(message.buffer);
  header.setUint8(0, VERSION);
  header.setUint8(1, kind);
  header.setUint32(4, sequence, true);
  header.setFloat64(8, captured, true);
  header.setInt32(16, -1, true);
  message.set(new Uint8Array(picture), HEADER_BYTES);
  return message.buffer;
}

/** The header's fields and the picture of a message; throws a RangeError where it is none. */
export function unpack(buffer) {
  if (buffer.byteLength <= HEADER_BYTES) throw new RangeError("a frame without a picture");
  const header = new DataView(buffer);
  if (header.getUint8(0) !== VERSION) throw new RangeError("a frame of another protocol");
  return {
    kind: header.getUint8(1),
    flags: header.getUint16(2, true),
    sequence: header.getUint32(4, true),
    captured: header.getFloat64(8, true),
    frame: header.getInt32(16, true),
    number: header.getUint32(20, true),
    serverMs: header.getFloat32(24, true),
    codecMs: header.getFloat32(28, true),
    picture: new Uint8Array(buffer, HEADER_BYTES),
  };
}
