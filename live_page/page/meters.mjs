/** Rates and quantiles of the last few seconds or values. Times are milliseconds of one clock. */

/** Events per second over a sliding window. */
export class RateMeter {
  #times = [];

  constructor(windowMs = 2000) {
    this.windowMs = windowMs;
  }

  add(now) {
    this.#times.push(now);
    this.#forget(now);
  }

  /** Per second; 0 when fewer than two events lie in the window. */
  rate(now) {
    this.#forget(now);
    const times = this.#times;
    if (times.length < 2) return 0;
    return (1000 * (times.length - 1)) / (times[times.length - 1] - times[0] || 1);
  }

  #forget(now) {
    const oldest = now - this.windowMs;
    const kept = this.#times.findIndex((time) => time >= oldest);
    this.#times.splice(0, kept < 0 ? this.#times.length : kept);
  }
}

/** Quantiles of the newest `size` values, in a ring. */
export class Quantiles {
  #values = [];
  #next = 0;

  constructor(size = 250) {
    this.size = size;
  }

  add(value) {
    this.#values[this.#next] = value;
    this.#next = (this.#next + 1) % this.size;
  }

  /** The value below which a share `q` of all lies (nearest rank); null when there is none. */
  at(q) {
    if (!this.#values.length) return null;
    const sorted = [...this.#values].sort((a, b) => a - b);
    return sorted[Math.max(0, Math.ceil(q * sorted.length) - 1)];
  }

  clear() {
    this.#values = [];
    this.#next = 0;
  }
}
