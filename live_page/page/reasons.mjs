/** What went wrong, in words that say what to do. */

const NEEDED = {
  requestVideoFrameCallback: () => "requestVideoFrameCallback" in HTMLVideoElement.prototype,
  OffscreenCanvas: () => typeof OffscreenCanvas !== "undefined",
  createImageBitmap: () => typeof createImageBitmap !== "undefined",
};

const CAMERA = {
  NotAllowedError: [
    "The camera was refused",
    "Allow it for this page: in the address bar (the camera or lock symbol), or in the browser's " +
      "settings for this site. Then choose Camera again.",
  ],
  NotFoundError: [
    "No camera was found",
    "Plug one in, or choose a screen, a video file or a picture instead.",
  ],
  NotReadableError: [
    "The camera cannot be read",
    "Another program may be using it. Close that program, then choose Camera again.",
  ],
  OverconstrainedError: [
    "That camera is no longer there",
    "Choose another one from the list.",
  ],
};

const SCREEN = {
  NotAllowedError: [
    "No screen was shared",
    "Choose Screen again and pick a screen, a window or a tab. Some systems must first allow the " +
      "browser to record the screen.",
  ],
};

/** Why this page cannot use cameras and screens here; null where it can. */
export function insecure() {
  if (window.isSecureContext && navigator.mediaDevices) return null;
  return {
    title: "Browsers give cameras only to localhost and https",
    text:
      `This page was opened from ${location.origin}. On this machine, open it from ` +
      `http://127.0.0.1${location.port ? `:${location.port}` : ""}; from another one or a phone, ` +
      "start ComfyUI with --tls-keyfile and --tls-certfile and use https. Video files and " +
      "pictures work here, too.",
  };
}

/** What this browser lacks, as a notice; null when it has everything. */
export function outdated() {
  const missing = Object.keys(NEEDED).filter((name) => !NEEDED[name]());
  if (!missing.length) return null;
  return {
    title: "This browser is too old for the live page",
    text: `It lacks ${missing.join(", ")}. Current versions of Chrome, Edge, Firefox and Safari have it.`,
  };
}

/** The notice for a source of this kind that did not open. */
export function sourceFailure(kind, error) {
  const known = { camera: CAMERA, screen: SCREEN }[kind]?.[error.name];
  if (known) return { title: known[0], text: known[1] };
  if (kind === "file") {
    return {
      title: "This file cannot be played",
      text: "The browser does not know its format. H.264 in mp4, or WebM, work everywhere.",
    };
  }
  if (kind === "still") {
    return { title: "This picture cannot be read", text: "Choose a JPEG, PNG or WebP file." };
  }
  return { title: `The ${kind} did not open`, text: `${error.message || error.name}.` };
}
