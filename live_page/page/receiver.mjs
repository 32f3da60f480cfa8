/** Decodes results and draws them, each once and in order, and tells the server of each. */
import { Quantiles, RateMeter } from "./meters.mjs";
import { FLAG, unpack } from "./packets.mjs";

export class Receiver extends EventTarget {
  #before = Promise.resolve();
  #context;
  #lastFinished = 0;
  /** Finished frames drawn, if this page sends: of its own. Those of a warm-up do not count. */
  shown = 0;
  drawn = new RateMeter();
  latency = new Quantiles();
  /** Whether this page sends the frames: only then have the times in them a meaning here. */
  ownClock = false;

  /** `codec.decode(frame)` gives a picture; `acknowledge({shown, ms})` goes to the server. */
  constructor(canvas, codec, acknowledge) {
    super();
    this.canvas = canvas;
    this.codec = codec;
    this.#context = canvas.getContext("2d", { alpha: false });
    this.acknowledge = acknowledge;
  }

  /** Take a message of the server; it is drawn after all that came before it. */
  receive(buffer) {
    const frame = unpack(buffer);
    const decoded = this.codec.decode(frame);
    // Handled where it is awaited, which may be later than it fails.
    decoded.catch(() => {});
    this.#before = this.#before.then(() => this.#show(frame, decoded));
  }

  /** Whether a frame of this page, or a later one, has been taken already. */
  #stale(frame) {
    if (!this.#own(frame) || frame.flags & FLAG.warmingUp) return false;
    if (frame.sequence <= this.#lastFinished) return true;
    this.#lastFinished = frame.sequence;
    return false;
  }

  async #show(frame, decoded) {
    try {
      const picture = await decoded;
      const stale = this.#stale(frame);
      if (!stale) this.#draw(picture);
      picture.close();
      if (stale) return this.acknowledge({ shown: frame.number });
    } catch (error) {
      console.warn(`Frame ${frame.number} cannot be decoded:`, error.message);
      this.acknowledge({ shown: frame.number });
      return;
    }
    const now = performance.now();
    this.drawn.add(now);
    const own = this.#own(frame);
    const ms = own ? now - frame.captured : null;
    this.acknowledge(own ? { shown: frame.number, ms } : { shown: frame.number });
    const finished = !(frame.flags & FLAG.warmingUp);
    if (finished && own === this.ownClock) this.shown += 1;
    if (finished && own) this.latency.add(ms);
    this.dispatchEvent(new CustomEvent("shown", { detail: { ...frame, ms } }));
  }

  /** Whether it is the result of a frame of this page, with a time on its clock. */
  #own({ flags }) {
    return this.ownClock && !(flags & FLAG.ofOthers);
  }

  #draw(picture) {
    const canvas = this.canvas;
    const width = picture.displayWidth ?? picture.width;
    const height = picture.displayHeight ?? picture.height;
    if (canvas.width !== width || canvas.height !== height) {
      [canvas.width, canvas.height] = [width, height];
    }
    this.#context.drawImage(picture, 0, 0);
  }
}
