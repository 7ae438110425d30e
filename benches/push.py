"""The cases of `push`: into Debian's docker-registry on this machine, beside what else brings images into registries."""

import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

from measure import MB, OURS, Run, check, compare, interleaved, median, remove, say, table, warm


class Registry:
    """A registry with nothing in it, on a free port."""

    def __init__(self, work):
        self.storage = work / "registry"
        remove(self.storage)
        self.storage.mkdir(parents=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        config = self.storage / "config.yml"
        config.write_text(f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {self.storage}}}}}\n"
                          f"http: {{addr: '{self.address}'}}\n")
        self.process = subprocess.Popen(
            ["docker-registry", "serve", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while True:
            try:
                urllib.request.urlopen(f"http://{self.address}/v2/").close()
                return
            except urllib.error.URLError:
                time.sleep(0.02)

    def measured(self, work):
        """Runs something against this registry, and adds to the run what it meant for the registry.

        Bytes are those over the machine's loopback, which counts each once, whoever sends it: those of the registry's
        answers, and of anybody else's doings, are among them.
        """
        cpu, sent = self.cpu(), loopback_bytes()
        run = work()
        run.registry_cpu, run.sent = self.cpu() - cpu, loopback_bytes() - sent
        return run

    def cpu(self):
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        remove(self.storage)


def loopback_bytes():
    return int(Path("/sys/class/net/lo/statistics/tx_bytes").read_text())


class Pushes:
    def tars(self):
        """What crane is given: tars made beforehand, a layer each, which is more than it could ask for."""
        made = self.work / "tars"
        if not made.exists():
            made.mkdir()
            for number, path in enumerate(self.files()):
                below = path.relative_to(self.assets)
                check(["tar", "-cf", made / f"{number}.tar", "-C", self.assets, "--transform", "s,^,var/task/,", below])
        return sorted(made.glob("*.tar"))

    def binary_tar(self):
        """The binary, changed a little each time."""
        self.edition = getattr(self, "edition", 0) + 1
        binary = self.work / "changed/bootstrap"
        binary.parent.mkdir(exist_ok=True)
        shutil.copy(self.project / "target/release/bench", binary)
        with open(binary, "ab") as file:
            file.write(f"{self.edition}".encode())
        tar = self.work / "binary.tar"
        check(["tar", "-cf", tar, "-C", binary.parent, "--transform", "s,^,var/task/,", "bootstrap"])
        return binary, tar

    def push_ours(self, registry, *arguments, cwd=None):
        command = [OURS, "push", "--quiet", "--repository", f"{registry.address}/bench", "--tag", "v1", *arguments]
        return registry.measured(lambda: Run(command, cwd=cwd or self.project))

    def push_crane(self, registry, tars):
        layers = [word for tar in tars for word in ("-f", tar)]
        command = ["crane", "append", "--insecure", *layers, "-t", f"{registry.address}/crane:v1"]
        return registry.measured(lambda: Run(command))

    def in_empty_registry(self, work):
        """Something done with a registry in which there is nothing, and with disks that have nothing to write."""
        def run():
            with Registry(self.work) as registry:
                os.sync()
                return work(registry)
        return run

    def push(self):
        say("cold push, nothing built before: into an empty registry on this machine, interleaved")
        for path in [*self.files(), *self.tars()]:
            warm(path)

        def ours(registry):
            self.forget()
            return self.push_ours(registry)

        def umoci(registry):
            layout = self.work / "umoci"
            remove(layout)
            shutil.copytree(self.base, layout)
            script = 'umoci insert --image "$1:latest" "$2" /var/task && skopeo copy -q --dest-tls-verify=false "oci:$1:latest" "$3"'
            command = ["sh", "-c", script, "sh", layout, self.context() / "task", f"docker://{registry.address}/umoci:v1"]
            return registry.measured(lambda: Run(command))

        peers = {"ours": self.in_empty_registry(ours)}
        if shutil.which("crane"):
            _, binary = self.binary_tar()
            peers["crane append"] = self.in_empty_registry(lambda registry: self.push_crane(registry, [*self.tars(), binary]))
        if shutil.which("umoci") and shutil.which("skopeo"):
            peers["umoci + skopeo"] = self.in_empty_registry(umoci)
        runs = interleaved(peers, self.count)
        met = compare(runs, {"crane append": 0.4})
        written = max(run.written for run in runs["ours"])
        print(f"written to disk by ours: {written / 1024 / 1024:.1f} MiB (to be below 64)")
        return met and written < 64 * 1024 * 1024

    def binary(self):
        say("push after the binary changed, without compiling: the rest is in the registry")
        with Registry(self.work) as registry:
            binary, tar = self.binary_tar()
            self.push_ours(registry, "--binary-path", binary, "--bin", "bench")
            time.sleep(2)  # files too fresh to be told apart by their times are hashed again
            self.push_ours(registry, "--binary-path", binary, "--bin", "bench")

            def ours():
                binary, _ = self.binary_tar()
                return self.push_ours(registry, "--binary-path", binary, "--bin", "bench")

            def crane():
                _, tar = self.binary_tar()
                return self.push_crane(registry, [*self.tars(), tar])

            peers = {"ours": ours}
            if shutil.which("crane"):
                self.push_crane(registry, [*self.tars(), tar])
                peers["crane append"] = crane
            runs = interleaved(peers, self.count)
        met = compare(runs, {"crane append": 1 / 50})
        wall = median(runs["ours"], "wall")
        print(f"ours: {wall * 1000:.0f} ms (to be below 100)")
        return met and wall < 0.1

    def pushmemory(self):
        say(f"peak memory of a push: one asset of {self.sizes['huge'] / MB:.0f} MB")
        huge = self.work / "huge.f32"
        if not huge.exists():
            self.repeat_weights(huge, self.sizes["huge"])
        target = self.work / "huge-target"
        rows, met = [], True
        for threads in [2, 16]:
            remove(target / "lambda-image")
            self.lock.unlink(missing_ok=True)
            with Registry(self.work) as registry:
                os.sync()
                # Without cargo, whose compiler would be the largest process.
                run = self.push_ours(registry, "--binary-path", "target/release/bench", "--no-assets", "--asset",
                                     f"{huge}:huge.f32", "--target-dir", target, "-j", threads)
            met &= run.peak < 100 * MB and run.written < 64 * 1024 * 1024
            rows.append([f"-j {threads}", f"{run.peak / MB:.0f}", f"{run.wall:.1f}", f"{run.cpu:.1f}",
                         f"{run.written / 1024 / 1024:.1f}"])
        table(["", "peak MB (to be below 100)", "wall s", "CPU s", "MiB to disk (to be below 64)"], rows)
        remove(target / "lambda-image")
        huge.unlink()
        return met
