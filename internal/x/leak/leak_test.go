package leak

import (
	"strings"
	"testing"
)

func TestRunning(t *testing.T) {
	began, stop, ended := make(chan bool), make(chan bool), make(chan bool)
	go stay(began, stop, ended)
	<-began
	if got := running("hansa.dev/hansa/internal/x/leak.stay"); len(got) != 1 || !strings.Contains(got[0], "stay") {
		t.Errorf("got %q, want the stack of stay", got)
	}
	if got := running("hansa.dev/hansa/internal/elsewhere"); len(got) != 0 {
		t.Errorf("got %q, want none", got)
	}
	close(stop)
	<-ended
}

func stay(began, stop, ended chan bool) {
	close(began)
	<-stop
	close(ended)
}
