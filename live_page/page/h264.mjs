/** H.264 both ways, by the browser's WebCodecs: a tenth of JPEG's bytes, for slow networks. */
import { KIND } from "./packets.mjs";

// Constrained baseline: no frame waits for a later one. Level 4 reaches 1920x1080.
const CODEC = "avc1.42E028";
const FRAMERATE = 30;
const BITS_PER_PIXEL = 0.2;
// So that a picture that was damaged on the way does not last.
const KEY_EVERY = 90;

export class H264Codec {
  #encoder = null;
  #decoder = null;
  #chunk = null;
  #encoded = 0;
  #waiting = [];

  /** Whether this browser has both directions. */
  static async supported() {
    if (typeof VideoEncoder === "undefined" || typeof VideoDecoder === "undefined") return false;
    const both = [
      VideoEncoder.isConfigSupported(encoding(512, 512)),
      VideoDecoder.isConfigSupported(DECODING),
    ];
    return (await Promise.all(both)).every(({ supported }) => supported);
  }

  /** A new connection begins with a key frame, both ways. */
  restart() {
    for (const codec of [this.#encoder, this.#decoder]) {
      if (codec && codec.state !== "closed") codec.close();
    }
    this.#encoder = this.#decoder = null;
    for (const { fail } of this.#waiting.splice(0)) fail(new Error("the connection has ended"));
  }

  /** The picture on `canvas` as it is now: {kind, picture}; null if the encoder leaves it out. */
  async encode(canvas) {
    const encoder = this.#encoderFor(canvas);
    const frame = new VideoFrame(canvas, { timestamp: (1e6 * this.#encoded) / FRAMERATE });
    this.#chunk = null;
    encoder.encode(frame, { keyFrame: this.#encoded % KEY_EVERY === 0 });
    frame.close();
    this.#encoded += 1;
    await encoder.flush();
    const chunk = this.#chunk;
    if (!chunk) return null;
    const picture = new ArrayBuffer(chunk.byteLength);
    chunk.copyTo(picture);
    return { kind: chunk.type === "key" ? KIND.h264Key : KIND.h264Delta, picture };
  }

  /** A picture that `drawImage` takes; to be closed afterwards. Frames come out in order. */
  decode({ kind, number, picture }) {
    const type = kind === KIND.h264Key ? "key" : "delta";
    if (!this.#decoder && type === "delta") {
      return Promise.reject(new Error("its key frame is missing"));
    }
    this.#decoder ??= this.#newDecoder();
    const decoded = new Promise((done, fail) => this.#waiting.push({ done, fail }));
    this.#decoder.decode(new EncodedVideoChunk({ type, timestamp: number, data: picture }));
    return decoded;
  }

  #encoderFor({ width, height }) {
    const size = `${width}x${height}`;
    if (this.#encoder?.state === "configured" && this.#encoder.size === size) return this.#encoder;
    if (this.#encoder && this.#encoder.state !== "closed") this.#encoder.close();
    this.#encoder = new VideoEncoder({
      output: (chunk) => (this.#chunk = chunk),
      error: (error) => console.warn("The H.264 encoder has stopped:", error.message),
    });
    this.#encoder.configure(encoding(width, height));
    this.#encoder.size = size;
    this.#encoded = 0;
    return this.#encoder;
  }

  #newDecoder() {
    const decoder = new VideoDecoder({
      output: (frame) => (this.#waiting.shift()?.done ?? (() => frame.close()))(frame),
      error: (error) => {
        // Until the next key frame there is nothing that could be decoded.
        if (this.#decoder === decoder) this.#decoder = null;
        for (const { fail } of this.#waiting.splice(0)) fail(error);
      },
    });
    decoder.configure(DECODING);
    return decoder;
  }
}

const DECODING = { codec: CODEC, optimizeForLatency: true };

function encoding(width, height) {
  return {
    codec: CODEC,
    width,
    height,
    framerate: FRAMERATE,
    bitrate: Math.round(width * height * FRAMERATE * BITS_PER_PIXEL),
    latencyMode: "realtime",
    avc: { format: "annexb" },
  };
}
