"""The nodes of the pack for ComfyUI: schemas, tooltips, checks and progress. No tensor maths."""

from comfy_api.latest import ComfyExtension, io
from server import PromptServer

from ..live_page.routes import register_routes
from .depth import Live2DiffEstimateDepth, Live2DiffLoadDepthModel
from .enhance_video import Live2DiffEnhanceVideo
from .extend_video import Live2DiffExtendVideo
from .feature_bank import Live2DiffApplyFeatureBank
from .kept_results import RESULTS
from .live import Live2DiffStreamStep
from .live_files import Live2DiffLoadStream, Live2DiffSaveStream
from .live_stream import Live2DiffLiveStream
from .live_streams import Live2DiffResetStream
from .long_video import Live2DiffLongVideo
from .measure import Live2DiffMeasureVideo
from .model_folders import register_model_folders
from .motion import Live2DiffApply, Live2DiffLoadMotionModule, Live2DiffSettings
from .options import Live2DiffSimilarFrameFilter, Live2DiffStreamOptions
from .partial_results import Live2DiffPartialResults
from .prompts import Live2DiffPromptSchedule
from .recordings import Live2DiffLoadRecording
from .sample_model import Live2DiffLoadSampleModel
from .sampler import Live2DiffStreamSampler
from .streamingt2v import Live2DiffLoadStreamingT2V, Live2DiffLoadVideoEnhancer
from .video import Live2DiffStreamVideo
from .video_from_folder import Live2DiffVideoFromFolder


class Live2DiffExtension(ComfyExtension):
    """The pack as an extension of ComfyUI's V3 API."""

    async def on_load(self) -> None:
        """Register model folders, before any node lists its files, and routes; tidy up."""
        register_model_folders()
        if (server := getattr(PromptServer, "instance", None)) is not None:
            register_routes(server.routes)
        RESULTS.sweep()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """List the node classes."""
        return [
            Live2DiffLoadMotionModule,
            Live2DiffSettings,
            Live2DiffApply,
            Live2DiffApplyFeatureBank,
            Live2DiffLoadDepthModel,
            Live2DiffEstimateDepth,
            Live2DiffPromptSchedule,
            Live2DiffStreamOptions,
            Live2DiffSimilarFrameFilter,
            Live2DiffStreamSampler,
            Live2DiffStreamVideo,
            Live2DiffVideoFromFolder,
            Live2DiffPartialResults,
            Live2DiffStreamStep,
            Live2DiffResetStream,
            Live2DiffSaveStream,
            Live2DiffLoadStream,
            Live2DiffLiveStream,
            Live2DiffLoadRecording,
            Live2DiffMeasureVideo,
            Live2DiffLoadSampleModel,
            Live2DiffLoadStreamingT2V,
            Live2DiffLongVideo,
            Live2DiffExtendVideo,
            Live2DiffLoadVideoEnhancer,
            Live2DiffEnhanceVideo,
        ]
