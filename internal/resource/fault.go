package resource

import (
	"errors"
	"fmt"
	"strings"

	v1 "hansa.dev/hansa/api/v1"
)

// The codes of faults. They are part of the interface: scripts match them, so they never change. Their comments are the
// page docs/reference/faults.md.
const (
	// CodeTooLarge: a document has more bytes than are read.
	CodeTooLarge = "document-too-large"
	// CodeTooDeep: a document is nested deeper than any resource needs.
	CodeTooDeep = "document-too-deep"
	// CodeTooManyNodes: a document holds more values than are read, counted as often as aliases repeat them.
	CodeTooManyNodes = "document-too-many-nodes"
	// CodeTooManyFaults: there are more faults than are shown.
	CodeTooManyFaults = "too-many-faults"
	// CodeEncoding: a document is not valid UTF-8.
	CodeEncoding = "invalid-utf8"
	// CodeSyntax: a document is neither YAML nor JSON.
	CodeSyntax = "syntax"
	// CodeNotAResource: a document is a list or a text where a map of fields belongs.
	CodeNotAResource = "not-a-resource"
	// CodeAPIVersion: apiVersion names another version than the one that is read.
	CodeAPIVersion = "wrong-api-version"
	// CodeUnknownKind: there is no such kind.
	CodeUnknownKind = "unknown-kind"
	// CodeSystemKind: resources of that kind are written by Hansa alone.
	CodeSystemKind = "system-kind"
	// CodeUnknownField: there is no such field at that place.
	CodeUnknownField = "unknown-field"
	// CodeDuplicateField: a field, or a key of a map, is there twice.
	CodeDuplicateField = "duplicate-field"
	// CodeWrongType: a value is of another type than the field.
	CodeWrongType = "wrong-type"
	// CodeRequired: a field must be set.
	CodeRequired = "required"
	// CodeInvalid: a value is not one that the field can have.
	CodeInvalid = "invalid-value"
	// CodeOutOfRange: a number, a duration, a length or a count is beyond its bounds.
	CodeOutOfRange = "out-of-range"
	// CodeDuplicateItem: a list holds the same item twice.
	CodeDuplicateItem = "duplicate-item"
	// CodeDuplicate: the input describes the same resource twice.
	CodeDuplicate = "duplicate-resource"
	// CodeOperationClash: two operations of an API have the same name, or match the same requests.
	CodeOperationClash = "operation-conflict"
	// CodePolicyPhase: a policy stands under request or response and belongs under the other.
	CodePolicyPhase = "policy-phase"
	// CodePolicyOrder: a policy stands before one that must come first.
	CodePolicyOrder = "policy-order"
	// CodePolicyShape: a step names no policy or several, or the settings of a policy do not fit together.
	CodePolicyShape = "policy-shape"
	// CodePolicyUnreached: a policy stands where no request comes, behind one that answers.
	CodePolicyUnreached = "policy-unreachable"
	// CodePolicyNeedsKey: a policy needs the API key that no apiKey before it asks for.
	CodePolicyNeedsKey = "policy-needs-api-key"
	// CodePolicyAbility: a policy needs a newer gateway than the oldest one in use.
	CodePolicyAbility = "policy-unsupported"
	// CodeDangling: a field names a resource that does not exist.
	CodeDangling = "dangling-reference"
	// CodeInUse: a resource is to be deleted and others refer to it.
	CodeInUse = "still-referenced"
	// CodeHostnameClash: a hostname belongs to another environment group.
	CodeHostnameClash = "hostname-conflict"
	// CodeBasePathClash: two APIs that answer under the same hostnames have the same base path.
	CodeBasePathClash = "base-path-conflict"
	// CodeDuplicateDeployment: an API is deployed to the same environment twice.
	CodeDuplicateDeployment = "duplicate-deployment"
	// CodeHostnameUnowned: a certificate is to be shown for a hostname that no environment group of the organization has.
	CodeHostnameUnowned = "hostname-not-owned"
	// CodeEntryTooLarge: a resource is larger than a gateway takes.
	CodeEntryTooLarge = "entry-too-large"
)

// InvalidError is the error that carries faults.
type InvalidError struct {
	Faults []v1.Fault // at least one
}

// AsError returns an *InvalidError, or nil if there are no faults.
func AsError(faults []v1.Fault) error {
	if len(faults) == 0 {
		return nil
	}
	return &InvalidError{Faults: faults}
}

// FaultsOf returns the faults that err carries.
func FaultsOf(err error) []v1.Fault {
	if e, ok := errors.AsType[*InvalidError](err); ok {
		return e.Faults
	}
	return nil
}

// Error shows the first faults, one a line.
func (e *InvalidError) Error() string {
	const shown = 10
	var sb strings.Builder
	for i, f := range e.Faults {
		if i == shown {
			fmt.Fprintf(&sb, "\nand %d more faults", len(e.Faults)-shown)
			break
		}
		if i > 0 {
			sb.WriteByte('\n')
		}
		sb.WriteString(FormatFault(f))
	}
	return sb.String()
}

// FormatFault writes a fault on one line, place first: "shop.yaml:12:5: API catalog: spec.basePath: ...".
func FormatFault(f v1.Fault) string {
	var sb strings.Builder
	if f.File != "" {
		sb.WriteString(f.File)
		if f.Line > 0 {
			fmt.Fprintf(&sb, ":%d:%d", f.Line, f.Column)
		}
		sb.WriteString(": ")
	}
	if f.Kind != "" {
		sb.WriteString(strings.TrimSpace(f.Kind + " " + f.Name))
		sb.WriteString(": ")
	}
	if f.Path != "" {
		sb.WriteString(f.Path + ": ")
	}
	sb.WriteString(f.Message)
	if f.Remedy != "" {
		sb.WriteString("; " + f.Remedy)
	}
	return sb.String()
}

// shorten makes a value fit to be shown in a fault.
func shorten(s string) string {
	const most = 80
	if len(s) <= most {
		return strings.ToValidUTF8(s, "\uFFFD")
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

// join extends the path of a field.
func join(path, field string) string {
	if path == "" {
		return field
	}
	return path + "." + field
}

func index(path string, i int) string { return fmt.Sprintf("%s[%d]", path, i) }

// key extends a path by a key of a map, quoted since such keys may hold anything.
func key(path, k string) string { return fmt.Sprintf("%s[%q]", path, k) }

// didYouMean returns a remedy that names the candidate nearest to word, or otherwise if none is near.
func didYouMean(word string, candidates []string, otherwise string) string {
	best, distance := "", 3
	if len(word) < 5 {
		distance = 2
	}
	for _, c := range candidates {
		if strings.EqualFold(c, word) {
			return fmt.Sprintf("did you mean %q?", c)
		}
		if d := editDistance(strings.ToLower(word), strings.ToLower(c), distance); d < distance {
			best, distance = c, d
		}
	}
	if best == "" {
		return otherwise
	}
	return fmt.Sprintf("did you mean %q?", best)
}

// editDistance is the number of insertions, deletions, replacements and swaps of neighbours between a and b, or
// limit if it is not below that (optimal string alignment).
func editDistance(a, b string, limit int) int {
	if d := len(a) - len(b); d >= limit || -d >= limit {
		return limit
	}
	rows := [3][]int{make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)}
	before, last, row := rows[0], rows[1], rows[2]
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return min(last[len(b)], limit)
}
