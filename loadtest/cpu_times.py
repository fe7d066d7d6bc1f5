"""The CPU time of the load test."""

import time

import psutil


class CpuTimes:
    """CPU seconds since the object was created."""

    def __init__(self) -> None:
        self._own_at_start = time.process_time()
        self._machine_at_start = _machine_s()

    @property
    def own_s(self) -> float:
        return time.process_time() - self._own_at_start

    def shares(self, others_s: float) -> dict[str, float]:
        """CPU time of Locust and of the machine; `others_s` is the time of Locust's workers."""
        locust, machine = self.own_s + others_s, _machine_s() - self._machine_at_start
        return {
            "locust_cpu_s": round(locust, 2),
            "machine_cpu_s": round(machine, 2),
            "locust_share": round(locust / machine, 3) if machine > 0 else 0.0,
        }


def _machine_s() -> float:
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0))
