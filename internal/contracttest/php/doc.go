// Package php tests the generated PHP client over real connections: against a
// scripted server that misbehaves, against the service, and through Laravel.
package php
