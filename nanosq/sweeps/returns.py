"""What Hydra keeps of the jobs of a sweep until the sweep ends."""

from typing import Any

from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback


class DropConfigurations(Callback):
    """Leaves the result of a job and drops its configurations, of which 1,000 jobs would hold 200 MiB.

    conf/config.yaml names this callback, so that it also runs in the worker processes of a launcher, which then need
    not send the configurations back.
    """

    def on_job_end(self, config: Any, job_return: JobReturn, **kwargs: Any) -> None:
        """Drop what no sweeper reads. Hydra calls this method in the process of the job."""
        job_return.cfg = job_return.hydra_cfg = None
