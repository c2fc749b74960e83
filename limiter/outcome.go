package limiter

// Outcome says how work that held a permit ended. It decides what the work teaches the control law.
type Outcome uint8

// The outcomes. An OK that comes after the request's deadline counts as Late by itself, and so does an Ignored that
// comes after it or in the last 32nd of the request's time: there a caller has most likely run out of time.
const (
	OK       Outcome = iota // a useful answer
	Ignored                 // says nothing about this service: the client's fault, or cancelled by it
	Late                    // ended after its deadline
	Overload                // failed because this service ran out of something
	Failed                  // failed for another reason
	Panicked                // the work panicked

	outcomes = int(iota)
)

// String returns the outcome's name in lower case.
func (o Outcome) String() string {
	names := [outcomes]string{"ok", "ignored", "late", "overload", "failed", "panicked"}
	if int(o) >= len(names) {
		return "unknown"
	}
	return names[o]
}
