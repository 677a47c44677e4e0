// Package tidegateheaders puts headers that ForwardAuth set on the request on the response as well.
package tidegateheaders

import (
	"context"
	"net/http"
)

// Config names the headers. ForwardAuth must set the same ones (authResponseHeaders), or end clients could.
type Config struct {
	Headers []string `json:"headers,omitempty"`
}

// CreateConfig is what Traefik fills in.
func CreateConfig() *Config {
	return &Config{}
}

// New makes the middleware; it belongs after ForwardAuth.
func New(_ context.Context, next http.Handler, config *Config, _ string) (http.Handler, error) {
	return http.HandlerFunc(func(answer http.ResponseWriter, request *http.Request) {
		for _, name := range config.Headers {
			if value := request.Header.Get(name); value != "" {
				answer.Header().Set(name, value)
			}
		}
		next.ServeHTTP(answer, request)
	}), nil
}
