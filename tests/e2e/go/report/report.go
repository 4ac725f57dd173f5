// Package report is what the client programs tell of their calls: lines of JSON on stdout, with statuses as Google's own
// library reads them.
package report

import (
	"encoding/json"
	"fmt"
	"sync"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"
)

// Status is how a call ended; what its status does not tell is empty.
type Status struct {
	Code     string  `json:"code"`
	Message  string  `json:"message"`
	Field    string  `json:"field"`
	Reason   string  `json:"reason"`
	Position string  `json:"position"`
	Retry    float64 `json:"retry"`
}

var output sync.Mutex

// StatusOf tells of a call that ended with this error.
func StatusOf(err error) Status {
	ended := status.Convert(err)
	s := Status{Code: code.Code(ended.Code()).String(), Message: ended.Message()}
	for _, detail := range ended.Details() {
		switch detail := detail.(type) {
		case *errdetails.BadRequest:
			s.Field = detail.GetFieldViolations()[0].GetField()
		case *errdetails.ErrorInfo:
			s.Reason, s.Position = detail.GetReason(), detail.GetMetadata()["position"]
		case *errdetails.RetryInfo:
			s.Retry = detail.GetRetryDelay().AsDuration().Seconds()
		}
	}
	return s
}

// Emit prints a line in one piece: other goroutines print, too.
func Emit(line any) {
	text, err := json.Marshal(line)
	if err != nil {
		panic(err)
	}
	output.Lock()
	defer output.Unlock()
	fmt.Println(string(text))
}
