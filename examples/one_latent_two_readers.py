"""A text is encoded once and sent as bytes; every reader named answers from the same message, without the text.

python examples/one_latent_two_readers.py smollm2-135m gemma-3-270m    # the second needs: pip install '.[gemma]'
"""

import sys
from pathlib import Path

import latentwire as lw

TEXT = (
    "The ship Flomora is led by Captain Fosita Sutune. Her home port is Drimford, and on each trip she carries cement."
    " The market in Gresford is on Thursday. Gresford is famous everywhere for its puppet theatre."
)
QUESTIONS = ("Who is the captain of the ship Flomora?", "What is Gresford famous for?")

wire = lw.Wire.from_pretrained(str(Path(__file__).parent.parent / "wires" / "facts"))
latent = wire.encode([TEXT], compression=4)[0]
message = lw.pack(latent, name="flomora")
print(f"{latent.source_tokens} tokens, {len(latent.payload)} vectors, {len(message)} bytes")

for name in sys.argv[1:] or ["smollm2-135m"]:
    reader = wire.open_reader(name)
    received = lw.unpack(message).latent()
    for question in QUESTIONS:
        print(f"{name}: {question} {reader.answer(wire.prefix([received], reader), question).text}")
