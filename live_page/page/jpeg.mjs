/** JPEG both ways. Encoding works in a worker: the page's own thread would put it off. */
import { KIND } from "./packets.mjs";

const QUALITY = 0.85;

export class JpegCodec {
  #worker = new Worker(new URL("jpeg_worker.mjs", import.meta.url), { type: "module" });
  #waiting = new Map();
  #next = 0;

  constructor() {
    this.#worker.onmessage = ({ data: { id, bytes } }) => {
      this.#waiting.get(id)(bytes);
      this.#waiting.delete(id);
    };
  }

  /** The picture on `canvas` as it is now: {kind, picture}. */
  async encode(canvas) {
    const bitmap = copyOf(canvas).transferToImageBitmap();
    const id = this.#next++;
    const bytes = new Promise((done) => this.#waiting.set(id, done));
    this.#worker.postMessage({ id, bitmap, quality: QUALITY }, [bitmap]);
    return { kind: KIND.jpeg, picture: await bytes };
  }

  /** A picture that `drawImage` takes; to be closed afterwards. */
  decode({ picture }) {
    return createImageBitmap(new Blob([picture], { type: "image/jpeg" }));
  }

  /** Every picture stands for itself: a new connection changes nothing. */
  restart() {}
}

function copyOf(canvas) {
  const copy = new OffscreenCanvas(canvas.width, canvas.height);
  copy.getContext("2d", { alpha: false }).drawImage(canvas, 0, 0);
  return copy;
}
