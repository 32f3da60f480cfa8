/**
 * Sends the newest picture of a canvas whenever there is a credit for it.
 *
 * A picture that no credit comes for is replaced by the next one: nothing queues, neither here nor
 * on the network. All times are `performance.now()`.
 */
import { NewestSlot } from "./newest_slot.mjs";
import { pack } from "./packets.mjs";
import { RateMeter } from "./meters.mjs";

export class Sender {
  #slot = new NewestSlot();
  #encoding = false;
  #active = false;
  #connection = 0;
  credits = 0;
  /** How many frames were sent; also the sequence number of the last. Rises for ever. */
  sent = 0;
  captured = new RateMeter();

  /**
   * `codec.encode(canvas)` gives {kind, picture}, or null for a picture that it leaves out;
   * `deliver(buffer)` hands a message to the network and tells whether it could.
   */
  constructor(canvas, codec, deliver) {
    this.canvas = canvas;
    this.codec = codec;
    this.deliver = deliver;
  }

  /** Whether pictures are sent at all; switching it off forgets the one that waits. */
  get active() {
    return this.#active;
  }

  set active(active) {
    this.#active = active;
    if (!active) this.#slot.take();
  }

  /** Frames that were captured while sending, but replaced before a credit came. */
  get skipped() {
    return this.#slot.replaced;
  }

  /** Tell that the canvas holds a picture that was captured at this time. */
  offer(captured) {
    this.captured.add(captured);
    if (!this.#active) return;
    this.#slot.put(captured);
    this.#pump();
  }

  grant(credits) {
    this.credits += credits;
    this.#pump();
  }

  /** A new connection: only its own credits count. */
  begin(credits) {
    this.#connection += 1;
    this.credits = 0;
    this.grant(credits);
  }

  async #pump() {
    if (this.#encoding || !this.#active || this.credits < 1 || !this.#slot.full) return;
    const captured = this.#slot.take();
    this.credits -= 1;
    this.#encoding = true;
    const connection = this.#connection;
    try {
      const encoded = await this.codec.encode(this.canvas);
      // The credit was the old connection's if there is a new one meanwhile.
      if (connection !== this.#connection) return;
      if (!encoded) this.credits += 1;
      else this.#deliver(encoded, captured);
    } finally {
      this.#encoding = false;
      this.#pump();
    }
  }

  #deliver({ kind, picture }, captured) {
    const message = pack({ kind, sequence: this.sent + 1, captured }, picture);
    if (this.deliver(message)) this.sent += 1;
  }
}
