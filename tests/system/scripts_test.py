"""The scripts as a new user meets them, in a copy of them with a tool-chain that only pretends."""
import os
import pwd
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
# Configures as CMake does: what is there already goes first. Fails where the file `broken` stands in the repository.
CMAKE = """
[ "$1" = --fresh ] || { echo "built $*" >>built; [ -e build/release/cache ] || exit 1; exit 0; }
rm -f build/release/cache
[ ! -e broken ] || exit 1
touch build/release/cache build/release/build.ninja
echo "configured in $PWD" >>configured
"""


class Scripts(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name)
        self.repository = self.root / "a copy"
        self.repository.mkdir()
        shutil.copytree(REPOSITORY / "scripts", self.repository / "scripts")
        shutil.copy(REPOSITORY / "demo", self.repository)
        self.cache = self.root / "cache"
        places = self.output("bash", "-c", "source scripts/environment; printf '%s\n' $toolchain $test_stamp $gpu_stamp")
        self.toolchain, *stamps = map(Path, places.split())
        (self.toolchain / "bin").mkdir(parents=True)
        for stamp in (self.toolchain / "complete", *stamps):
            stamp.touch()
        self.pretend("cmake", CMAKE)

    def pretend(self, program, text):
        """It is found before the system's: the tool-chain stands first in PATH."""
        path = self.toolchain / "bin" / program
        path.write_text("#!/usr/bin/env bash\n" + text)
        path.chmod(0o755)

    def run_script(self, *command, folder=None, **environment):
        return subprocess.run(command, cwd=folder or self.repository, stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, timeout=60, check=False,
                              env=os.environ | {"CEPE_CACHE_DIR": str(self.cache)} | environment)

    def output(self, *command, **options):
        outcome = self.run_script(*command, **options)
        self.assertEqual(outcome.returncode, 0, outcome.stderr)
        return outcome.stdout

    def refuse(self, expected, *command, **options):
        outcome = self.run_script(*command, **options)
        self.assertEqual(outcome.returncode, 2, outcome.stderr)
        self.assertIn(expected, outcome.stderr)

    def everything(self):
        return sorted(path for path in self.root.rglob("*"))

    def test_help_says_what_a_script_is_for_and_does_nothing(self):
        before = self.everything()
        for script in sorted((REPOSITORY / "scripts").iterdir()):
            if not os.access(script, os.X_OK) or script.is_dir():
                continue
            with self.subTest(script.name):
                head = script.read_text().splitlines()[1].removeprefix("# ")
                self.assertTrue(self.output("scripts/" + script.name, "--help").startswith(head + "\n"))
        self.assertEqual(self.everything(), before)

    def test_an_argument_that_a_script_does_not_know_is_refused(self):
        before = self.everything()
        for script in ("build", "fetch-models", "format", "sanitize", "setup"):
            with self.subTest(script):
                self.refuse("'relase'", "scripts/" + script, "relase")
        self.assertEqual(self.everything(), before)

    def test_a_file_that_is_not_there_is_not_passed_over_by_clang_tidy(self):
        self.refuse("src/none.cpp", "scripts/tidy", "src/none.cpp")

    def test_a_checkout_that_was_moved_is_configured_again(self):
        self.output("scripts/build")
        self.repository = self.repository.rename(self.root / "moved")
        self.output("scripts/build")
        self.assertEqual((self.repository / "configured").read_text().splitlines(),
                         [f"configured in {self.root / name}" for name in ("a copy", "moved")])

    def test_a_folder_is_configured_again_after_a_configuration_that_failed(self):
        self.output("scripts/build")
        (self.repository / "broken").touch()
        (self.root / "elsewhere").symlink_to(self.cache)
        outcome = self.run_script("scripts/build", CEPE_CACHE_DIR=str(self.root / "elsewhere"))
        self.assertEqual(outcome.returncode, 1, outcome.stderr)
        (self.repository / "broken").unlink()
        self.output("scripts/build")

    def test_a_cache_folder_is_meant_from_where_the_user_is(self):
        self.output("a copy/scripts/build", folder=self.root, CEPE_CACHE_DIR="cache")

    def compilers(self, group_files, control_group, available_kilobytes=64_000_000, cores=16):
        """How many at once on a machine with these files of control groups."""
        shutil.rmtree(self.root / "machine", ignore_errors=True)
        for path, text in ({f"sys/fs/cgroup/{name}": text for name, text in group_files.items()} |
                           {"proc/self/cgroup": control_group, "proc/meminfo":
                            f"MemTotal: 1 kB\nMemAvailable:    {available_kilobytes} kB\n"}).items():
            (self.root / "machine" / path).parent.mkdir(parents=True, exist_ok=True)
            (self.root / "machine" / path).write_text(text + "\n")
        self.pretend("nproc", f"echo {cores}")
        return int(self.output("bash", "-c", "set -euo pipefail; source scripts/environment; "
                               f"source scripts/container-limits; compilers_at_once '{self.root}/machine'"))

    def test_no_more_compilers_run_at_once_than_a_container_has_cores_and_memory_for(self):
        self.assertEqual(self.compilers({}, "0::/"), 16)
        (self.root / "machine/proc/self/cgroup").unlink()
        self.assertEqual(self.output("bash", "-c", "source scripts/container-limits; control_groups cpu ../machine"), "")
        self.assertEqual(self.compilers({}, "0::/", available_kilobytes=4_000_000), 2)
        self.assertEqual(self.compilers({}, "0::/", available_kilobytes=1000), 1)
        second = {"memory.max": "8000000000", "memory.current": "7000000000", "cpu.max": "max 100000",
                  "memory.stat": "anon 2000000000\nfile 5000000000\nshmem 1000000000\ninactive_file 4000000000"}
        self.assertEqual(self.compilers(second, "0::/"), 3)
        self.assertEqual(self.compilers(second | {"memory.max": "3000000000"}, "0::/"), 16)
        inner = {"a b/c/memory.max": "max", "a b/c/cpu.max": "150000 100000"}
        self.assertEqual(self.compilers(second, "0::/a b/c"), 3)
        self.assertEqual(self.compilers(second | inner, "0::/a b/c"), 1)
        self.assertEqual(self.compilers(second | inner, "0::/../elsewhere"), 3)
        first = {"memory/memory.limit_in_bytes": "9223372036854771712", "cpu/cpu.cfs_quota_us": "-1",
                 "cpu/docker/1/cpu.cfs_quota_us": "400000", "cpu/docker/1/cpu.cfs_period_us": "100000",
                 "memory/docker/1/memory.limit_in_bytes": "9000000000",
                 "memory/docker/1/memory.usage_in_bytes": "8000000000", "memory/docker/1/memory.stat":
                 "rss 1\nshmem 1\ntotal_cache 7000000000\ntotal_rss 0\ntotal_shmem 100000"}
        self.assertEqual(self.compilers(first, "3:cpuset:/\n2:cpu,cpuacct:/docker/1\n0::/"), 4)
        self.assertEqual(self.compilers(first, "2:memory:/docker/1"), 5)

    def test_without_home_the_cache_is_where_the_program_looks_for_it(self):
        def cache(**variables):
            names = " ".join(f"{name}={value}" for name, value in variables.items())
            return self.output("bash", "-euo", "pipefail", "-c",
                               f"unset HOME CEPE_CACHE_DIR XDG_CACHE_HOME; {names}\nset --\nsource scripts/environment; echo $cache")

        self.assertEqual(cache().strip(), pwd.getpwuid(os.getuid()).pw_dir + "/.cache/cepe")
        self.assertEqual(cache(XDG_CACHE_HOME="/elsewhere").strip(), "/elsewhere/cepe")
        self.pretend("getent", "exit 2")
        self.assertEqual(cache(PATH=f"{self.toolchain}/bin:$PATH").strip(), "/tmp/cepe-cache")

    def test_the_demo_takes_files_from_where_the_user_is_and_refuses_at_once_what_is_not_there(self):
        for script in ("setup", "fetch-models"):
            (self.repository / "scripts" / script).write_text("#!/bin/sh\n")
        program = self.repository / "build/release/bin/cepe"
        program.parent.mkdir(parents=True)
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
        (self.root / "my text.txt").touch()
        demo = ("a copy/demo", "--document", "my text.txt")
        self.assertIn(f"generate --document {self.root}/my text.txt", self.output(*demo, folder=self.root))
        (self.repository / "built").unlink()
        for expected, *arguments in (("--document 'none.txt'", "--document", "none.txt"),
                                     ("--adapter 'none'", "--adapter", "none"), ("--tokens 'few'", "--tokens", "few")):
            self.refuse(expected, "./demo", *arguments)
        self.assertFalse((self.repository / "built").exists())

    def test_two_set_ups_at_once_install_the_packages_once(self):
        libraries = self.toolchain / "lib/python3.11/site-packages/nvidia/cu13/lib"
        libraries.mkdir(parents=True)
        (libraries / "libcudart.so.13").touch()
        self.pretend("id", "echo 0")
        self.pretend("dpkg-query", f"[ -e '{self.root}/installed' ] && echo install ok installed")
        self.pretend("apt-get", f"""
mkdir '{self.root}/lists-lock' || exit 100
sleep 0.5
[ "$1" = update ] || echo "$@" >>'{self.root}/installed'
rmdir '{self.root}/lists-lock'
""")
        runs = [subprocess.Popen(["scripts/setup"], cwd=self.repository, stdout=subprocess.DEVNULL,
                                 stderr=subprocess.PIPE, text=True,
                                 env=os.environ | {"CEPE_CACHE_DIR": str(self.cache), "LC_ALL": "C"})
                for _ in range(2)]
        for run in runs:
            self.assertEqual((run.wait(timeout=60), run.stderr.read()), (0, ""))
            run.stderr.close()
        self.assertEqual(len((self.root / "installed").read_text().splitlines()), 1)


if __name__ == "__main__":
    unittest.main()
