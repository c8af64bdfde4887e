package resource

import "flag"

var update = flag.Bool("update", false, "rewrite what is generated: docs.json, docs/reference/resources.md and the expected results in testdata")
