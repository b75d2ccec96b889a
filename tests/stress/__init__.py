"""What runs must survive: kills, full disks and flipped bits. Each script prints how many tries ended in which way.

python -m tests.stress.kill             # SIGKILL before every file-system event of each command, then the command again
python -m tests.stress.full             # each command on a full disk of many sizes, then again with room
python -m tests.stress.flip             # one bit flipped in each part of each file that a command reads
python -m tests.stress.paid             # SIGKILL at any time, then next month's queries: what an annotation pays twice

All but the last take `commands=train,evaluate` (default: all that the script knows) and `every=N` (only every Nth
try). A try is `identical` (the results are those of an undisturbed run, bit for bit), `refused` (one line, exit status
2), `other` (other results, without a word), `traceback` or `failed`. Exit status 1 if any try is not one of the first
two.
"""
