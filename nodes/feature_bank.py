"""The node that applies StreamV2V's feature bank to a MODEL."""

from comfy_api.latest import io

from ..live2diff_core.feature_bank.bank import ALL_LEVELS, BankConfig, BankKind
from ..live2diff_core.feature_bank.patch import apply_feature_bank
from .types import CATEGORY

LEVELS_TOOLTIP = f"Of: {', '.join(ALL_LEVELS)}; separated by commas, or 'all', or 'none'."


def levels(names: str) -> tuple[str, ...]:
    """Parse a list of UNet levels from a text field of the node.

    Raises:
        ValueError: from `BankConfig`, for names that are no level.
    """
    chosen = [" ".join(name.split()).lower() for name in names.split(",") if name.strip()]
    if chosen == ["all"]:
        return ALL_LEVELS
    return () if chosen == ["none"] else tuple(chosen)


def check_levels(fuse: tuple[str, ...], extend: tuple[str, ...]) -> None:
    """Refuse levels that the UNet does not have.

    Raises:
        ValueError: from `BankConfig`, or both lists are empty.
    """
    BankConfig(fuse=fuse, extend=extend)
    if not fuse and not extend:
        raise ValueError(
            "neither fuse nor extend names a level, so the bank would do nothing. Name one, or "
            "leave the node out."
        )


class Live2DiffApplyFeatureBank(io.ComfyNode):
    """Applies a feature bank to a MODEL."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        default = BankConfig()
        return io.Schema(
            node_id="Live2DiffApplyFeatureBank",
            display_name="Apply Feature Bank",
            category=CATEGORY,
            description="StreamV2V: frames stay alike because self-attention also sees features of "
            "past frames. Needs no training and no extra weights; works with any SD1.5 MODEL, "
            "alone or together with 'Apply Live2Diff', before or after it.",
            search_aliases=["streamv2v", "extended attention", "feature fusion"],
            inputs=[
                io.Model.Input(
                    "model", tooltip="Any SD1.5 MODEL; add LCM-LoRA to it for few-step sampling."
                ),
                *_bank_inputs(default),
                *_use_inputs(default),
            ],
            outputs=[
                io.Model.Output(
                    display_name="model",
                    tooltip="The MODEL with the bank, for the stream nodes only.",
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, fuse: str | None = None, extend: str | None = None) -> bool | str:
        """Report an unknown level before the run; linked inputs have no value yet."""
        try:
            default = BankConfig()
            check_levels(
                default.fuse if fuse is None else levels(fuse),
                default.extend if extend is None else levels(extend),
            )
        except ValueError as error:
            return f"Apply Feature Bank: {error}"
        return True

    @classmethod
    def execute(
        cls,
        model,
        bank: str,
        queue_frames: int,
        interval: int,
        fusion_strength: float,
        similarity_threshold: float,
        fuse: str,
        extend: str,
    ) -> io.NodeOutput:
        """Return a patched clone of the MODEL."""
        check_levels(levels(fuse), levels(extend))
        config = BankConfig(
            kind=BankKind(bank),
            queue_frames=queue_frames,
            interval=interval,
            fusion_strength=fusion_strength,
            similarity_threshold=similarity_threshold,
            fuse=levels(fuse),
            extend=levels(extend),
        )
        return io.NodeOutput(apply_feature_bank(model, config))


def _bank_inputs(default: BankConfig) -> list:
    return [
        io.Combo.Input(
            "bank",
            options=[kind.value for kind in BankKind],
            default=default.kind.value,
            tooltip="merge: past frames are merged into the size of one (dynamic merging). queue: "
            "the last frames are kept as they are.",
        ),
        io.Int.Input(
            "queue_frames",
            default=default.queue_frames,
            min=1,
            max=16,
            tooltip="Frames in the queue; time and memory grow with it. Not used by 'merge'.",
        ),
        io.Int.Input(
            "interval",
            default=default.interval,
            min=1,
            max=1000,
            tooltip="Every so many frames one is taken into the bank.",
        ),
    ]


def _use_inputs(default: BankConfig) -> list:
    return [
        io.Float.Input(
            "fusion_strength",
            default=default.fusion_strength,
            min=0.0,
            max=1.0,
            step=0.01,
            tooltip="How much of a similar past feature goes into each feature. More is steadier, "
            "and smears sooner.",
        ),
        io.Float.Input(
            "similarity_threshold",
            default=default.similarity_threshold,
            min=-1.0,
            max=1.0,
            step=0.01,
            tooltip="Cosine similarity that a past feature must reach to be used at all.",
        ),
        io.String.Input(
            "fuse",
            default=", ".join(default.fuse),
            tooltip=f"UNet levels whose features are fused. {LEVELS_TOOLTIP}",
        ),
        io.String.Input(
            "extend",
            default="all",
            tooltip=f"UNet levels whose self-attention sees the bank. {LEVELS_TOOLTIP}",
        ),
    ]
