"""Draws digits, trains a small network on them, and writes what the example ships.

    python3 train.py            # draws, trains, writes: a minute
    python3 train.py --check    # draws the held-out pictures anew, counts what is recognised

- The standard library is all it needs. Of its random numbers only `random()` is used, which gives
  the same numbers in every version; sums are written out and the loss needs no logarithm. So the
  files are the same, to the byte, wherever floats are those of IEEE 754.
- Training pictures and held-out pictures come of two seeds.

Files, numbers little-endian:

    weights.bin    "sbdg", then as u32: version 1, oldest reader 1, pixels 144, hidden 32,
                   digits 10, 0, 0; then as f32: of the hidden layer the weights [pixel][neuron]
                   and biases [neuron], of the last the weights [neuron][digit] and biases [digit]
    pictures.grey  500 pictures of 12 x 12 bytes, row by row, one behind the other
    labels.txt     the digit of each, a line for each
"""

import argparse
import hashlib
import pathlib
import random
import struct
import sys

HERE = pathlib.Path(__file__).resolve().parent
WEIGHTS, PICTURES, LABELS = HERE / "weights.bin", HERE / "pictures.grey", HERE / "labels.txt"
MANIFEST = HERE / "pipeline.toml"

SIDE = 12
PIXELS = SIDE * SIDE
HIDDEN = 32
DIGITS = 10
HELD_OUT = 500
TRAINING = 6000
ROUNDS = 14
SEED_TRAINING, SEED_HELD_OUT, SEED_WEIGHTS = 1, 2, 3

# The least that the shipped weights recognise of the held-out pictures.
RECOGNISED_MIN = 490

# Each digit in 5 x 7 cells.
FONT = [
    ".###. #...# #..## #.#.# ##..# #...# .###.",
    "..#.. .##.. ..#.. ..#.. ..#.. ..#.. .###.",
    ".###. #...# ....# ...#. ..#.. .#... #####",
    "##### ...#. ..#.. ...#. ....# #...# .###.",
    "...#. ..##. .#.#. #..#. ##### ...#. ...#.",
    "##### #.... ####. ....# ....# #...# .###.",
    "..##. .#... #.... ####. #...# #...# .###.",
    "##### ....# ...#. ..#.. .#... .#... .#...",
    ".###. #...# #...# .###. #...# #...# .###.",
    ".###. #...# #...# .#### ....# ...#. .##..",
]
COLUMNS, ROWS = 5, 7
INK = [
    {(x, y) for y, row in enumerate(cells.split()) for x, cell in enumerate(row) if cell == "#"}
    for cells in FONT
]


def between(dice, least, most):
    """A number from one to another."""
    return least + (most - least) * dice.random()


def drawn(dice, digit):
    """A picture of a digit: of some size, somewhere, slanted, thick or thin, with noise."""
    wide, high = between(dice, 1.25, 2.0), between(dice, 1.2, 1.6)
    left = between(dice, 0.0, SIDE - COLUMNS * wide)
    top = between(dice, 0.0, SIDE - ROWS * high)
    slant = between(dice, -0.15, 0.15)
    thick = between(dice, 0.0, 0.35)
    bright, noise = between(dice, 100.0, 220.0), between(dice, 0.0, 90.0)
    ink = INK[digit]
    picture = bytearray(PIXELS)
    for y in range(SIDE):
        for x in range(SIDE):
            hits = 0
            for down, right in ((0.25, 0.25), (0.25, 0.75), (0.75, 0.25), (0.75, 0.75)):
                v = (y + down - top) / high
                u = (x + right - left) / wide + slant * (v - ROWS / 2)
                # From a number below 0 `int` would come to 0, which is a cell.
                near = ((int(u + a + 8) - 8, int(v + b + 8) - 8)
                        for a in (-thick, thick) for b in (-thick, thick))
                hits += any(cell in ink for cell in near)
            # Most pixels have no noise.
            spot = noise * dice.random() if dice.random() < 0.3 else 0.0
            picture[y * SIDE + x] = min(255, int(bright * hits / 4 + spot))
    return bytes(picture)


def pictures(seed, count):
    """Pictures with their digits, as many of each digit as of the others."""
    dice = random.Random(seed)
    return [(drawn(dice, at % DIGITS), at % DIGITS) for at in range(count)]


def as_f32(numbers):
    """The numbers as they come back from a file."""
    form = f"<{len(numbers)}f"
    return list(struct.unpack(form, struct.pack(form, *numbers)))


class Network:
    """Weights of two layers. A row of weights is of all that one neuron gives to."""

    def __init__(self, hidden, hidden_bias, last, last_bias):
        self.hidden, self.hidden_bias = hidden, hidden_bias
        self.last, self.last_bias = last, last_bias

    @classmethod
    def fresh(cls, dice):
        """Random weights, about as large as a layer needs for its inputs."""
        hidden = [[between(dice, -0.15, 0.15) for _ in range(HIDDEN)] for _ in range(PIXELS)]
        last = [[between(dice, -0.3, 0.3) for _ in range(DIGITS)] for _ in range(HIDDEN)]
        return cls(hidden, [0.0] * HIDDEN, last, [0.0] * DIGITS)

    @classmethod
    def read(cls, packed):
        """The network of a file."""
        floats = PIXELS * HIDDEN + HIDDEN + HIDDEN * DIGITS + DIGITS
        head = struct.unpack_from("<4s7I", packed)
        if head != (b"sbdg", 1, 1, PIXELS, HIDDEN, DIGITS, 0, 0):
            sys.exit(f"{WEIGHTS.name} is no file of this network")
        numbers = iter(struct.unpack_from(f"<{floats}f", packed, 32))

        def row(length):
            return [next(numbers) for _ in range(length)]

        # The file takes bytes, training takes 256th of them.
        hidden = [[weight * 256.0 for weight in row(HIDDEN)] for _ in range(PIXELS)]
        hidden_bias = row(HIDDEN)
        last = [row(DIGITS) for _ in range(HIDDEN)]
        return cls(hidden, hidden_bias, last, row(DIGITS))

    def packed(self):
        """The file."""
        numbers = [weight / 256.0 for row in self.hidden for weight in row] + self.hidden_bias
        numbers += [weight for row in self.last for weight in row] + self.last_bias
        head = struct.pack("<4s7I", b"sbdg", 1, 1, PIXELS, HIDDEN, DIGITS, 0, 0)
        return head + struct.pack(f"<{len(numbers)}f", *as_f32(numbers))

    def scores(self, inputs):
        """What the hidden neurons and the digits come to, of inputs that are not 0."""
        sums = self.hidden_bias
        for pixel, value in inputs:
            sums = [s + value * weight for s, weight in zip(sums, self.hidden[pixel])]
        active = [s if s > 0.0 else 0.0 for s in sums]
        scores = self.last_bias
        for value, row in zip(active, self.last):
            if value > 0.0:
                scores = [s + value * weight for s, weight in zip(scores, row)]
        return active, scores

    def learn(self, inputs, digit, rate):
        """One step down the squared hinge loss: the digit is to have 1, the others -1."""
        active, scores = self.scores(inputs)
        slopes = [
            -rate * max(0.0, 1.0 - s) if at == digit else rate * max(0.0, 1.0 + s)
            for at, s in enumerate(scores)
        ]
        if not any(slopes):
            return
        back = [0.0] * HIDDEN
        for neuron, value in enumerate(active):
            if value > 0.0:
                row, total = self.last[neuron], 0.0
                for slope, weight in zip(slopes, row):
                    total += slope * weight
                back[neuron] = total
                self.last[neuron] = [w - value * slope for w, slope in zip(row, slopes)]
        self.last_bias = [bias - slope for bias, slope in zip(self.last_bias, slopes)]
        self.hidden_bias = [bias - slope for bias, slope in zip(self.hidden_bias, back)]
        for pixel, value in inputs:
            row = self.hidden[pixel]
            self.hidden[pixel] = [weight - value * slope for weight, slope in zip(row, back)]


def inputs_of(picture):
    """The pixels that are not black."""
    return [(at, byte / 256.0) for at, byte in enumerate(picture) if byte]


def trained():
    """A network that has seen all training pictures, several times."""
    dice = random.Random(SEED_WEIGHTS)
    network = Network.fresh(dice)
    known = [(inputs_of(picture), digit) for picture, digit in pictures(SEED_TRAINING, TRAINING)]
    for number in range(ROUNDS):
        known.sort(key=lambda _: dice.random())
        rate = 0.02 * (1.0 - number / ROUNDS)
        for inputs, digit in known:
            network.learn(inputs, digit, rate)
        print(f"round {number + 1} of {ROUNDS}", file=sys.stderr)
    return network


def recognised(network, shown):
    """How many pictures are taken for what they are."""
    count = 0
    for picture, digit in shown:
        scores = network.scores(inputs_of(picture))[1]
        count += scores.index(max(scores)) == digit
    return count


def main():
    parser = argparse.ArgumentParser(description="Trains the network of the example `digits`.")
    parser.add_argument("--check", action="store_true", help="hold the files against this script")
    check = parser.parse_args().check
    held_out = pictures(SEED_HELD_OUT, HELD_OUT)
    files = {
        PICTURES: b"".join(picture for picture, _ in held_out),
        LABELS: "".join(f"{digit}\n" for _, digit in held_out).encode(),
    }
    if not check:
        files[WEIGHTS] = trained().packed()
        for path, content in files.items():
            path.write_bytes(content)
    for path, content in files.items():
        if path.read_bytes() != content:
            sys.exit(f"{path.name} is not what this script makes")
    weights = WEIGHTS.read_bytes()
    digest = f"sha256:{hashlib.sha256(weights).hexdigest()}"
    if digest not in MANIFEST.read_text():
        sys.exit(f"{MANIFEST.name} has other weights than {digest}")
    count = recognised(Network.read(weights), held_out)
    print(f"recognised {count} of {HELD_OUT}")
    if count < RECOGNISED_MIN:
        sys.exit(f"that is less than {RECOGNISED_MIN}")


if __name__ == "__main__":
    main()
