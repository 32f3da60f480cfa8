// The pack's limits in ComfyUI's settings; nodes/settings.py reads them.
import { app } from "../../scripts/app.js";

const CATEGORY = "Live2Diff";

app.registerExtension({
  name: "live2diff.settings",
  settings: [
    {
      id: "Live2Diff.PartialDays",
      category: [CATEGORY, "Partial results", "days"],
      name: "Keep partial results of Stream Video for so many days (0: for ever)",
      tooltip: "Counted from the last run that used them.",
      type: "number",
      defaultValue: 30,
      attrs: { min: 0, max: 3650 },
    },
    {
      id: "Live2Diff.PartialGigabytes",
      category: [CATEGORY, "Partial results", "gigabytes"],
      name: "Most gigabytes of partial results of Stream Video (0: no limit)",
      tooltip: "Beyond that, those that were not used for longest are deleted.",
      type: "number",
      defaultValue: 200,
      attrs: { min: 0, max: 100000 },
    },
  ],
});
