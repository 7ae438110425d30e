"""The case of many small files, as `node_modules` and datasets are."""

import random
import shutil
import time

from measure import MB, OURS, Run, check, compare, interleaved, median, remove, say, warm
from push import Registry

BYTES = 10_000


class Small:
    def small(self):
        count = self.sizes["many"] // BYTES
        say(f"{count} files of {BYTES} bytes: cold push into an empty registry on this machine, then warm")
        project = self.work / "small"
        make_many(project / "many", count)
        table = f'base = "oci:{self.base}:latest"\n[[assets]]\npath = "many"\n'
        (project / "lambda-image.toml").write_text(table)
        tar = self.work / "small.tar"
        if not tar.exists():
            check(["tar", "-cf", tar, "-C", project, "--transform", "s,^,var/task/,", "many"])
        for path in [tar, *sorted((project / "many").rglob("*"))]:
            if path.is_file():
                warm(path)
        arguments = ["--binary-path", self.project / "target/release/bench", "--name", "bench"]

        def ours(registry):
            remove(project / "target")
            (project / "lambda-image.lock").unlink(missing_ok=True)
            return self.push_ours(registry, *arguments, cwd=project)

        peers = {"ours": self.in_empty_registry(ours)}
        if shutil.which("crane"):
            _, binary = self.binary_tar()
            peers["crane append"] = self.in_empty_registry(lambda registry: self.push_crane(registry, [tar, binary]))
        met = compare(interleaved(peers, self.count), {"crane append": 0.4})
        return self.small_warm(project, arguments) and met

    def small_warm(self, project, arguments):
        with Registry(self.work) as registry:
            self.push_ours(registry, *arguments, cwd=project)
            time.sleep(2)  # files too fresh to be told apart by their times are hashed again
            self.push_ours(registry, *arguments, cwd=project)
            build = [OURS, "build", "--quiet", *arguments]
            Run(build, cwd=project)
            commands = {
                "ours": lambda: self.push_ours(registry, *arguments, cwd=project),
                "ours, build only": lambda: Run(build, cwd=project),
                "find -newer": lambda: Run(["find", "many", "-type", "f", "-newer", "lambda-image.lock"], cwd=project),
            }
            runs = interleaved(commands, max(5, self.count))
        compare(runs, {})
        walls = [median(runs[name], "wall") for name in ["ours", "ours, build only"]]
        print(f"nothing changed: push {walls[0] * 1000:.0f} ms, build {walls[1] * 1000:.0f} ms (to be below 300 each)")
        return max(walls) < 0.3


def make_many(directory, count):
    """Files of which two thirds are text, in directories of a hundred."""
    if directory.exists():
        return
    say(f"making {count} files, {count * BYTES / MB:.0f} MB")
    dice = random.Random(3)
    words = ["".join(dice.choices("eeetaoinshrdlucm_.(){};", k=dice.randint(1, 9))) for _ in range(3000)]
    unfinished = directory.with_suffix(".unfinished")
    remove(unfinished)
    for number in range(count):
        path = unfinished / f"{number // 2000:02}" / f"{number // 100 % 20:02}" / f"{number:06}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if number % 3 == 0:
            path.write_bytes(dice.randbytes(BYTES))
        else:
            path.write_text(" ".join(dice.choices(words, k=BYTES // 4))[:BYTES].ljust(BYTES))
    unfinished.rename(directory)
