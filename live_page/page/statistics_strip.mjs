/** The strip of figures below the pictures. */
const element = (id) => document.getElementById(id);
const NOTHING = "–";

const number = (value, digits = 0) => (value == null ? NOTHING : value.toFixed(digits));

/**
 * Show the figures. The sender's own are exact: its frames carry its clock. One that only watches
 * shows what the server was told.
 */
export function showStatistics(status, sender, receiver, now) {
  const own = receiver.ownClock;
  const running = status?.state === "running" || status?.state === "paused";
  const rateIn = own ? sender.captured.rate(now) : status?.fps_in;
  const rateOut = own ? receiver.drawn.rate(now) : status?.fps_out;
  element("fps-in").value = running || rateIn ? number(rateIn, 1) : NOTHING;
  element("fps-out").value = running ? number(rateOut, 1) : NOTHING;
  const told = running ? status : null;
  element("latency-median").value = number(own ? receiver.latency.at(0.5) : told?.latency_ms);
  element("latency-p95").value = number(own ? receiver.latency.at(0.95) : told?.latency_ms_p95);
  const dropped = (status?.dropped ?? 0) + sender.skipped;
  element("dropped").value = running ? String(dropped) : NOTHING;
  element("dropped").title = `${sender.skipped} in this page, ${status?.dropped ?? 0} in the server`;
  element("vram").value = number(status?.vram_gb, 1);
}
