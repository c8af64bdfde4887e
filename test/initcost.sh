#!/bin/sh
# usage: test/initcost.sh PROGRAM MILLISECONDS KILOBYTES
# Fails if the package initialisers of PROGRAM, all together, take longer or allocate more than that: every command pays for
# them. Shows the dearest. On a busy machine a run says little about time, so the best of five counts.
set -eu
for run in 1 2 3 4 5; do
	GODEBUG=inittrace=1 "$1" version 2>&1 >/dev/null | awk -v ms="$2" -v kb="$3" '
		$1 == "init" { took += $5; bytes += $8; print $5 " ms " $8 " bytes " $2 | "sort -rn | head -5" }
		END {
			close("sort -rn | head -5")
			printf "package initialisers: %.2f ms, %d kB; at most %d ms, %d kB\n", took, bytes / 1000, ms, kb
			exit took == 0 || took > ms || bytes / 1000 > kb
		}' && exit 0
done
exit 1
