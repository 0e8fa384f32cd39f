// Package predict makes one call of a signature: render, run, receipt.
//
// A signature is a typed, hashed contract (schemas/ds/signatures). A call
// validates its input, renders the prompt from the signature's blocks, asks the
// model by the strategy direct.v1 (one model call, the text is the output), and
// seals a receipt. The receipt is not stored here: it goes into the commit that
// makes the output count, so that there is never one without the other.
package predict
