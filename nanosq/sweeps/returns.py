"""The returns of the jobs of a sweep, which Hydra and the sweeper keep until the sweep ends."""

from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback


class DropConfigurations(Callback):
    """Leaves the result of a job and drops its two configurations, which take 200 MiB for 1,000 jobs.

    A callback also runs in the worker processes of a launcher, which then need not send the configurations back.
    """

    def on_job_end(self, config: Any, job_return: JobReturn, **kwargs: Any) -> None:
        """Drop what no sweeper reads. Hydra calls this method in the process of the job."""
        job_return.cfg = job_return.hydra_cfg = None


def failed_job(error: Exception) -> JobReturn:
    """Return what a job that raises an exception returns."""
    lost = JobReturn(status=JobStatus.FAILED)
    lost.return_value = error
    return lost
