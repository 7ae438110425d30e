"""The cases of a machine that never built: it has the lock, and the assets or not even those."""

import shutil

from measure import Run, check, compare, interleaved, median, remove, say, warm
from push import Registry


class Fresh:
    def locked(self, registry):
        """Pushes everything once, as another machine did; the arguments with which it is pushed again.

        The base is a registry's too, as it would be, so that the lock says what there is to know of it. Nothing is
        compiled.
        """
        self.forget()
        base = f"{registry.address}/base:1"
        check(["skopeo", "copy", "--quiet", "--dest-tls-verify=false", f"oci:{self.base}:latest", f"docker://{base}"])
        arguments = ["--binary-path", self.project / "target/release/bench", "--bin", "bench", "--base", base]
        self.push_ours(registry, *arguments)
        return arguments

    def fresh(self):
        say("fresh runner: the lock and the assets are here, the records are not; the registry has everything")
        files = sorted(self.files(), key=lambda path: -path.stat().st_size)
        for path in [*files, *self.tars()]:
            warm(path)
        # Each file on one core, the largest first: as well as files can be spread.
        spread = 'cores=$1; shift; printf "%s\\0" "$@" | xargs -0 -n 1 -P "$cores" sha256sum'
        with Registry(self.work) as registry:
            arguments = self.locked(registry)
            peers = {
                "ours": lambda: self.fresh_ours(registry, arguments),
                "sha256sum": lambda: Run(["sh", "-c", spread, "sh", self.cores, *files]),
            }
            if shutil.which("crane"):
                _, binary = self.binary_tar()
                self.push_crane(registry, [*self.tars(), binary])
                peers["crane append"] = lambda: self.push_crane(registry, [*self.tars(), binary])
            runs = interleaved(peers, self.count)
        return compare(runs, {"sha256sum": 1.2})

    def fresh_ours(self, registry, arguments):
        remove(self.store)
        return self.push_ours(registry, *arguments, "--locked")

    def absent(self):
        say("fresh runner without assets: the lock is here, and the registry has everything")
        bare = self.work / "bare"
        remove(bare)
        with Registry(self.work) as registry:
            arguments = [*self.locked(registry), "--assets-from-lock", "--locked"]
            (bare / "src").mkdir(parents=True)
            for name in ["src/main.rs", "Cargo.toml", "Cargo.lock", "lambda-image.lock"]:
                shutil.copy(self.project / name, bare / name)

            def ours():
                remove(bare / "target")
                return self.push_ours(registry, *arguments, cwd=bare)

            runs = interleaved({"ours": ours}, max(5, self.count))
        compare(runs, {})
        wall = median(runs["ours"], "wall")
        print(f"ours: {wall * 1000:.0f} ms (to be below 300); no peer can do it")
        return wall < 0.3
