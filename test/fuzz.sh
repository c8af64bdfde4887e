#!/bin/sh
# usage: test/fuzz.sh TIME [PATTERN]
# Runs every fuzz target of this module for TIME each ("30s", "10m"), one after the other: those whose name contains PATTERN.
# Go on with the rest when one finds something; the exit status says so at the end. What a target finds is kept as a seed in its
# package's testdata/fuzz: commit it with the fix.
set -u
time=$1
pattern=${2:-}
found=0
for file in $(git ls-files '*_test.go' | xargs grep -l '^func Fuzz' | sort); do
	for target in $(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$file"); do
		case $target in *"$pattern"*) ;; *) continue ;; esac
		echo "--- $target ($(dirname "$file"), $time)"
		go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" "./$(dirname "$file")" || found=1
	done
done
exit $found
