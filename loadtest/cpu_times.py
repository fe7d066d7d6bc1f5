"""The processor time of the load test."""

import psutil


class CpuTimes:
    """Seconds of processor time since its creation."""

    def __init__(self) -> None:
        self._own_at_start = self._own()
        self._machine_at_start = self._machine()

    @property
    def own_s(self) -> float:
        """Of this process."""
        return self._own() - self._own_at_start

    def shares(self, others_s: float) -> dict[str, float]:
        """The time of Locust (others are its workers) and of all processes of this machine."""
        locust, machine = self.own_s + others_s, self._machine() - self._machine_at_start
        return {
            "locust_cpu_s": round(locust, 2),
            "machine_cpu_s": round(machine, 2),
            "locust_share": round(locust / machine, 3) if machine > 0 else 0.0,
        }

    @staticmethod
    def _own() -> float:
        times = psutil.Process().cpu_times()
        return float(times.user + times.system)

    @staticmethod
    def _machine() -> float:
        times = psutil.cpu_times()
        return float(sum(times) - times.idle - getattr(times, "iowait", 0.0))
