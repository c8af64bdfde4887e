package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// stream is what go test -json prints for a package with a test of each outcome, for one that does not build, for one
// that breaks outside its tests, and for one without tests.
const stream = `{"Action":"start","Package":"m/a"}
{"Action":"run","Package":"m/a","Test":"TestGood"}
{"Action":"output","Package":"m/a","Test":"TestGood","Output":"=== RUN   TestGood\n"}
{"Action":"pass","Package":"m/a","Test":"TestGood","Elapsed":0.1}
{"Action":"output","Package":"m/a","Test":"TestBad/sub","Output":"    a_test.go:7: wrong\n"}
{"Action":"fail","Package":"m/a","Test":"TestBad/sub"}
{"Action":"output","Package":"m/a","Test":"TestBad","Output":"--- FAIL: TestBad (0.00s)\n"}
{"Action":"fail","Package":"m/a","Test":"TestBad"}
{"Action":"output","Package":"m/a","Test":"TestLater","Output":"    a_test.go:9: not here\n"}
{"Action":"skip","Package":"m/a","Test":"TestLater"}
{"Action":"output","Package":"m/a","Output":"FAIL\tm/a\t0.2s\n"}
{"Action":"fail","Package":"m/a"}
{"ImportPath":"m/b","Action":"build-output","Output":"b/b.go:3:1: syntax error\n"}
{"Action":"output","Package":"m/b","Output":"FAIL\tm/b [build failed]\n"}
{"Action":"fail","Package":"m/b","FailedBuild":"m/b"}
{"Action":"output","Package":"m/c","Output":"panic: in TestMain\n"}
{"Action":"fail","Package":"m/c"}
{"Action":"output","Package":"m/d","Output":"?   \tm/d\t[no test files]\n"}
{"Action":"skip","Package":"m/d"}
{"Action":"output","Package":"m/e","Output":"PASS\n"}
{"Action":"output","Package":"m/e","Output":"ok  \tm/e\t0.1s\n"}
{"Action":"pass","Package":"m/e"}
`

func TestReadEvents(t *testing.T) {
	t.Parallel()
	var printed strings.Builder
	got, err := readEvents(strings.NewReader(stream), &printed)
	if err != nil {
		t.Fatal(err)
	}
	want := outcomes{
		"m/a.TestGood": pass, "m/a.TestBad/sub": fail, "m/a.TestBad": fail, "m/a.TestLater": skip,
		"m/b": fail, "m/c": fail,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("outcomes (-want +got):\n%s", diff)
	}
	wantPrinted := `    a_test.go:7: wrong
--- FAIL: TestBad (0.00s)
FAIL	m/a	0.2s
b/b.go:3:1: syntax error
FAIL	m/b [build failed]
panic: in TestMain
ok  	m/e	0.1s
`
	if diff := cmp.Diff(wantPrinted, printed.String()); diff != "" {
		t.Errorf("printed (-want +got):\n%s", diff)
	}
}

func TestSumFiles(t *testing.T) {
	t.Parallel()
	f := func(strict bool, runs []outcomes, wantLast string, wantErr bool) {
		t.Helper()
		var files []string
		for _, run := range runs {
			file := filepath.Join(t.TempDir(), "results", "run.json")
			if err := run.save(file); err != nil {
				t.Fatal(err)
			}
			files = append(files, file)
		}
		var printed strings.Builder
		err := sumFiles(&printed, files, strict)
		lines := strings.Split(strings.TrimSpace(printed.String()), "\n")
		if last := lines[len(lines)-1]; last != wantLast || (err != nil) != wantErr {
			t.Errorf("sumFiles(%v, strict %v) = %q, %v; want %q, error %v", runs, strict, last, err, wantLast, wantErr)
		}
	}
	f(true, []outcomes{{"a": pass, "b": skip}, {"a": skip, "b": pass}}, "2 passed, 0 failed, 0 skipped", false)
	f(true, []outcomes{{"a": pass, "b": skip}, {"b": skip}}, "1 passed, 0 failed, 1 skipped", true)
	f(false, []outcomes{{"a": pass, "b": skip}}, "1 passed, 0 failed, 1 skipped", false)
	f(false, []outcomes{{"a": pass}, {"a": fail}, {"a": pass}}, "0 passed, 1 failed, 0 skipped", true)
	f(false, []outcomes{{}}, "0 passed, 0 failed, 0 skipped", true)
}
