"""Golden values of sampled softmax from TensorFlow: `python tests/golden/make_tensorflow.py` writes tensorflow.json.

    python3.11 -m venv peers/tensorflow && peers/tensorflow/bin/pip install -r tests/golden/tensorflow.requirements.txt

The classes are given, not drawn: `log_expected` are the logarithms of their expected counts, which TensorFlow subtracts
from the logits; a sampled class that is the true one is taken out. The true one is there in any case: its count is one.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from writing import case, write

SIZE, CLASSES, WIDTH, SAMPLES = 5, 20, 3, 8


def main() -> None:
    """The loss of each record, and its mean's gradients by state and by the items' table."""
    rng = np.random.default_rng(0)
    state, items, bias = (rng.normal(size=shape) for shape in ((SIZE, WIDTH), (CLASSES, WIDTH), (CLASSES,)))
    true = rng.integers(0, CLASSES, SIZE)
    others = rng.choice(np.delete(np.arange(CLASSES), true[0]), SAMPLES - 1, replace=False)
    sampled = np.append(true[0], others)  # a true class among them; each once, as TensorFlow takes out only one
    counts = rng.uniform(0.05, 2.0, CLASSES)
    tensors = [tf.Variable(array) for array in (state, items)]
    with tf.GradientTape() as tape:
        losses = tf.nn.sampled_softmax_loss(
            weights=tensors[1], biases=tf.constant(bias), labels=true[:, None], inputs=tensors[0],
            num_sampled=SAMPLES, num_classes=CLASSES, remove_accidental_hits=True,
            sampled_values=(tf.constant(sampled), tf.ones((SIZE, 1), tf.float64), tf.constant(counts[sampled])),
        )  # fmt: skip
        mean = tf.reduce_mean(losses)
    by_state, by_items = tape.gradient(mean, tensors)
    inputs = {
        "state": state, "items": items, "bias": bias, "true": true, "sampled": sampled,
        "log_expected": np.log(counts[sampled]),
    }  # fmt: skip
    outputs = {
        "loss": losses.numpy(),
        "gradient_state": by_state.numpy(),
        "gradient_items": tf.convert_to_tensor(by_items).numpy(),
    }
    write("tensorflow", ("tensorflow-cpu",), {"sampled_softmax": case(inputs, outputs)})


if __name__ == "__main__":
    main()
