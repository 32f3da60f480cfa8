/**
 * How a source's picture is put into the frame that the model sees: turned, mirrored, then scaled
 * so that it fills the frame (and is cropped) or fits into it.
 *
 * A framing is {fit: "fill" | "fit", turn: 0 | 90 | 180 | 270, mirror, zoom, x, y}; `x` and `y`,
 * from 0 to 1, say which part of a picture that is larger than the frame is kept.
 */
export const WHOLE = Object.freeze({
  fit: "fill",
  turn: 0,
  mirror: false,
  zoom: 1,
  x: 0.5,
  y: 0.5,
});

/** The rectangle of the frame that the turned picture covers, and its scale. */
export function placed(source, frame, framing) {
  const sideways = framing.turn % 180 !== 0;
  const width = sideways ? source.height : source.width;
  const height = sideways ? source.width : source.height;
  const across = frame.width / width;
  const down = frame.height / height;
  const scale = (framing.fit === "fill" ? Math.max : Math.min)(across, down) * framing.zoom;
  return {
    scale,
    left: (frame.width - width * scale) * framing.x,
    top: (frame.height - height * scale) * framing.y,
    width: width * scale,
    height: height * scale,
  };
}

/** Draw `picture`, of the size of `source`, into the whole of `context`'s canvas. */
export function drawFramed(context, picture, source, framing) {
  const frame = context.canvas;
  const { scale, left, top, width, height } = placed(source, frame, framing);
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.fillStyle = "#000";
  if (width < frame.width || height < frame.height) {
    context.fillRect(0, 0, frame.width, frame.height);
  }
  context.translate(left + width / 2, top + height / 2);
  context.scale(framing.mirror ? -scale : scale, scale);
  context.rotate((framing.turn * Math.PI) / 180);
  context.drawImage(picture, -source.width / 2, -source.height / 2, source.width, source.height);
}
