"""The types of links between this pack's own nodes."""

from comfy_api.latest import io

CATEGORY = "Live2Diff"
MotionModuleType = io.Custom("MOTION_MODULE")
SettingsType = io.Custom("LIVE2DIFF_SETTINGS")
OptionsType = io.Custom("LIVE2DIFF_OPTIONS")
FrameFilterType = io.Custom("LIVE2DIFF_FRAME_FILTER")
DepthModelType = io.Custom("LIVE2DIFF_DEPTH_MODEL")
RecordingType = io.Custom("LIVE2DIFF_RECORDING")
T2VModelType = io.Custom("STREAMINGT2V_MODEL")
EnhancerType = io.Custom("VIDEO_ENHANCER")
