"""TensorBoard reads our event files."""
import math
import os
import subprocess
import tempfile
import unittest
from pathlib import Path

try:
    from tensorboard.backend.event_processing import event_accumulator
except ImportError:
    event_accumulator = None


@unittest.skipUnless(event_accumulator, "TensorBoard's reader is not installed: run scripts/setup")
class EventFiles(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name) / "run"

    def write(self, scalars, *arguments):
        lines = "".join(f"{tag} {step} {value}\n" for tag, step, value in scalars)
        subprocess.run([os.environ["CEPE_EVENT_FILE_WRITER"], self.folder, *arguments], input=lines, text=True, check=True)

    def read(self):
        accumulator = event_accumulator.EventAccumulator(str(self.folder), size_guidance={"tensors": 0, "scalars": 0})
        accumulator.Reload()
        self.assertEqual(accumulator.file_version, 2)
        return {tag: [(event.step, event.value) for event in accumulator.Scalars(tag)] for tag in accumulator.Tags()["scalars"]}

    def test_curves_are_read_as_they_were_written(self):
        losses = [("loss/train", step, 0.5 ** (step % 20)) for step in range(2000)]
        others = [("rate", 0, 1e-3), ("rate", 1 << 40, -2.5), ("größe", 7, 1.0)]
        self.write(losses + others)
        curves = self.read()
        self.assertEqual(curves["loss/train"], [(step, value) for _, step, value in losses])
        self.assertEqual([step for step, _ in curves["rate"]], [0, 1 << 40])
        self.assertAlmostEqual(curves["rate"][0][1], 1e-3, places=9)
        self.assertEqual(curves["größe"], [(7, 1.0)])
        self.assertEqual(len(curves), 3)

    def test_a_number_that_is_none_stays_one(self):
        self.write([("loss", 1, "nan"), ("loss", 2, "inf")])
        (_, first), (_, second) = self.read()["loss"]
        self.assertTrue(math.isnan(first))
        self.assertEqual(second, math.inf)

    def test_steps_that_a_resumed_run_repeats_stand_once(self):
        self.write([("loss", step, 1.0) for step in range(10)])
        self.write([("loss", step, 2.0) for step in range(6, 12)], "5")
        self.assertEqual(self.read()["loss"], [(step, 1.0 if step < 6 else 2.0) for step in range(12)])


if __name__ == "__main__":
    unittest.main()
