"""What most commands import of this package, and the plugins that Hydra looks for: here the code does not change."""

from hydra.core.plugins import Plugins

import distill.data.mixing
import distill.evaluation.suite
import distill.export.model_card
import distill.jobs
import distill.losses.objective
import distill.retrieval.fused_teacher
import distill.training.checkpoint
import distill.training.final_test
import distill.training.selection
import distill.training.tracking
import distill.training.verdict  # noqa: F401

Plugins.instance()
