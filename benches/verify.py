"""The cases of the checks: an image of anybody's read and judged, and what judging adds to a build."""

import json
import statistics
import time

from measure import MB, OURS, Run, cargo, compare, interleaved, median, remove, say, warm


def least(runs):
    return min(run.cpu for run in runs)


class Verifies:
    def blobs(self):
        """The layers of the image that `build` makes, large ones only."""
        self.ours()  # a push leaves none here
        layers = json.loads((self.store / "bench.json").read_text())["layers"]
        path = lambda layer: self.store / "layout/blobs/sha256" / layer["digest"].removeprefix("sha256:")
        return [path(layer) for layer in layers if layer["uncompressed_size"] >= MB]

    def verify(self):
        say("verify: the image read as anybody's, beside unpacking and hashing its layers, as many at once as cores")
        blobs = self.blobs()
        for blob in blobs:
            warm(blob)
        layout = f"oci:{self.store / 'layout'}:bench"
        script = 'printf "%s\\0" "$@" | xargs -0 -P "$CORES" -I{} sh -c "gzip -dc {} | sha256sum"'
        runs = interleaved({
            "ours": lambda: Run([OURS, "verify", "--quiet", layout], cwd=self.work),
            "zcat | sha256sum": lambda: Run(["env", f"CORES={self.cores}", "sh", "-c", script, "sh", *blobs]),
        }, self.count)
        met = compare(runs, {"zcat | sha256sum": 1 / 0.6})
        # The same work by the library's own decompressor: what a core could do at best.
        cpu = 0.0
        for line in cargo("bench", "--quiet", "--bench", "parts", "--", "--unpack", *blobs).splitlines():
            cpu += float(line.split()[4])
        share = cpu / median(runs["ours"], "cpu")
        print(f"unpacking and hashing in this process: {cpu:.3f} core-seconds, {share:.0%} of ours (to be 60 % or more)")
        return met and share >= 0.6

    def checks(self):
        say("checks: a cold build with and without them, and then a build of nothing new")
        for path in self.files():
            warm(path)

        def cold(*arguments):
            def run():
                remove(self.store)
                return self.ours(*arguments)
            return run

        def unchecked(*arguments):
            return self.ours("--no-verify", *arguments)

        runs = interleaved({"ours": cold(), "cold, unchecked": cold("--no-verify")}, max(10, self.count))
        # Two in a hundred are less than what runs differ by; what disturbs a run only ever adds to it, so the least counts.
        added = least(runs["ours"]) / least(runs["cold, unchecked"]) - 1
        compare(runs, {})
        print(f"added to the CPU time of a cold build: {added:.1%} (to be below 2 %)")

        self.ours()
        time.sleep(2)  # files too fresh to be told apart by their times are hashed again
        self.ours()
        runs = interleaved({"ours": self.ours, "warm, unchecked": unchecked}, max(10, self.count))
        compare(runs, {})
        beside = statistics.median(
            ours.wall - other.wall for ours, other in zip(runs["ours"], runs["warm, unchecked"]))
        print(f"added to a warm build: {beside * 1000:.1f} ms (to be below 20)")
        return added < 0.02 and beside < 0.02
