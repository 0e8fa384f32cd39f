package bundle

import "go.yaml.in/yaml/v3"

// nameInline gives every inline object a Go type name made from its place, so
// that generated code has no anonymous structs: RespondV1InputMessagesItem.
func nameInline(doc *yaml.Node) {
	schemas := Get(Get(doc, "components"), "schemas")
	if schemas == nil {
		return
	}
	for i := 0; i+1 < len(schemas.Content); i += 2 {
		if Get(schemas.Content[i+1], "x-go-type") == nil {
			nameMembers(schemas.Content[i+1], GoName(schemas.Content[i].Value))
		}
	}
}

func nameMembers(n *yaml.Node, name string) {
	if props := Get(n, "properties"); props != nil {
		for i := 0; i+1 < len(props.Content); i += 2 {
			nameOne(props.Content[i+1], name+GoName(props.Content[i].Value))
		}
	}
	if items := Get(n, "items"); items != nil {
		nameOne(items, name+"Item")
	}
}

func nameOne(n *yaml.Node, name string) {
	if Get(n, "$ref") != nil || n.Kind != yaml.MappingNode {
		return
	}
	if Get(n, "properties") != nil && Get(n, "x-go-type-name") == nil {
		add(n, "x-go-type-name", scalar(name))
	}
	nameMembers(n, name)
}
