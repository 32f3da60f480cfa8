/** A place for one frame: a newer one replaces it, so that a slow receiver never makes a queue. */
export class NewestSlot {
  #frame = null;
  /** How many frames were replaced before anybody took them. */
  replaced = 0;

  get full() {
    return this.#frame !== null;
  }

  put(frame) {
    if (this.full) this.replaced += 1;
    this.#frame = frame;
  }

  /** Return the frame and leave the slot empty; null when there is none. */
  take() {
    const frame = this.#frame;
    this.#frame = null;
    return frame;
  }
}
