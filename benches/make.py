"""Makes what is packed: the same bytes on every machine, once."""

import itertools
import random
import sqlite3

from measure import MB, cargo, say


def make_once(path, size, make):
    """Makes a file unless it is there; `size` is only asked for, a database is of whole pages."""
    if path.exists():
        return
    say(f"making {path.name}, {size / MB:.0f} MB")
    unfinished = path.with_suffix(".unfinished")
    unfinished.unlink(missing_ok=True)
    make(unfinished, size)
    unfinished.rename(path)


def make_weights(path, size, seed):
    cargo("bench", "--quiet", "--bench", "assets", "--", path, size, seed)


def make_database(path, size):
    """A SQLite file of articles. Words are made up and as unevenly frequent as words are."""
    dice = random.Random(20)
    letters = "eeeeeeetttttaaaaaooooiiiinnnnsssshhhrrrdddlluucmfwygpbvkxqjz"
    words = ["".join(dice.choices(letters, k=dice.choice([2, 3, 3, 4, 4, 5, 6, 7, 8, 9, 11]))) for _ in range(20_000)]
    weights = list(itertools.accumulate(1 / (rank + 3) for rank in range(len(words))))
    # A pool far larger than deflate's window of 32 KiB, so that drawing from it repeats nothing deflate could see.
    pool = [" ".join(dice.choices(words, cum_weights=weights, k=12)).capitalize() + ". " for _ in range(100_000)]
    database = sqlite3.connect(path)
    database.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA page_size = 4096;"
                           "CREATE TABLE article (id INTEGER PRIMARY KEY, title TEXT, added TEXT, body TEXT);")
    while database.execute("PRAGMA page_count").fetchone()[0] * 4096 < size:
        rows = []
        for _ in range(1000):
            added = f"20{dice.randint(10, 25)}-{dice.randint(1, 12):02}-{dice.randint(1, 28):02}"
            rows.append((dice.choice(pool)[:40], added, "".join(dice.choices(pool, k=dice.randint(1, 20)))))
        database.executemany("INSERT INTO article (title, added, body) VALUES (?, ?, ?)", rows)
    database.commit()
    database.close()
