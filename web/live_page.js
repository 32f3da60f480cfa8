// The live page in ComfyUI's menu and sidebar. It is a page of its own, in a new tab.
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";

const OPEN = "Live2Diff.OpenLivePage";
const TITLE = "Live2Diff Live";

function address() {
  return api.fileURL("/live2diff/live");
}

function open() {
  window.open(address(), "_blank", "noopener");
}

// A link, which also works where the browser blocks pages that scripts open.
function drawSidebar(place) {
  const words = document.createElement("p");
  words.textContent =
    "Camera, screen or file in, the translated picture out, while a workflow with a Live Stream " +
    "node runs: open the template “live” and press Run.";
  const link = document.createElement("a");
  Object.assign(link, { href: address(), target: "_blank", rel: "noopener" });
  link.textContent = "Open the live page";
  const panel = document.createElement("div");
  panel.style.cssText = "display: grid; gap: 12px; padding: 16px; line-height: 1.45;";
  link.style.cssText =
    "padding: 9px 14px; border-radius: 8px; text-align: center; text-decoration: none; " +
    "font-weight: 600; background: var(--p-primary-color, #6fe3c1); " +
    "color: var(--p-primary-contrast-color, #06231b);";
  panel.append(words, link);
  place.replaceChildren(panel);
}

app.registerExtension({
  name: "live2diff.live_page",
  commands: [{ id: OPEN, label: `Open ${TITLE}`, icon: "pi pi-video", function: open }],
  menuCommands: [{ path: ["Live2Diff"], commands: [OPEN] }],
  setup() {
    app.extensionManager.registerSidebarTab({
      id: "live2diff.live",
      icon: "pi pi-video",
      title: "Live",
      tooltip: TITLE,
      type: "custom",
      render: drawSidebar,
    });
  },
});
