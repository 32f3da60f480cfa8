/** What the page says about the stream, for every state that it can be in. */

/** The words beside the dot in the top bar. */
export function stateWords({ connection, role }, status) {
  if (connection === "connecting") return "Connecting …";
  if (connection === "lost") return "Server gone, reconnecting …";
  if (connection === "refused") return "Reload this page";
  const state = status?.state ?? "waiting";
  if (state === "running" && role === "watch" && status.sender) return "Live, watching";
  if (state === "running" && fedHere(status) && !status.sender) return "Ready";
  if (state === "running" && status.warmup) return "Warming up";
  return {
    waiting: "Waiting for ComfyUI",
    starting: "Loading models …",
    running: "Live",
    paused: "Paused",
    stopped: "Stopped",
  }[state];
}

/** What stands over the result as long as there is no picture: [title, text]. */
export function veilWords({ connection, role, sending, source }, status) {
  if (connection !== "open") return ["No connection yet", "ComfyUI has not answered."];
  const state = status?.state ?? "waiting";
  if (state === "waiting") {
    return ["No stream yet", "In ComfyUI, open the template “live” and press Run."];
  }
  if (state === "starting") return ["Loading the models", "The first start takes longest."];
  if (state === "stopped") return ["Stopped", "Start queues the same graph again."];
  if (state === "paused") return ["Paused", "Resume goes on with the memory kept."];
  if (role === "watch" && status.sender) return ["Watching", "Another page feeds this stream."];
  if (!fedHere(status)) return ["Waiting for pictures", "They come from the address that the node reads."];
  if (!source) return ["Ready", "Choose a source below, then press Start."];
  if (!sending) return ["Ready", "Press Start."];
  return ["Sending", "The first result is on its way."];
}

/** The label of the big button. */
export function startWords({ sending }, status) {
  const state = status?.state ?? "waiting";
  if (state === "starting") return "Starting …";
  if (state === "paused") return "Resume";
  if (state === "running" && (sending || !fedHere(status))) return "Pause";
  return "Start";
}

/** Whether the stream's pictures come from pages like this one. */
export function fedHere(status) {
  return !status?.source || status.source === "live page";
}

/** How long a recording is, as minutes and seconds; null when there is none. */
export function recordedTime(recording) {
  if (!recording) return null;
  const seconds = Math.floor(recording.seconds);
  const two = (value) => String(value).padStart(2, "0");
  return `${two(Math.floor(seconds / 60))}:${two(seconds % 60)}`;
}
