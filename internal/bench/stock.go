package main

import (
	"context"
	"fmt"
	"net/http"
	"sync"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/internal/httpx"
	"github.com/boss/demo-multiplexer/scheduler/state"
)

// stockRequest asks for warm instances beyond those that there are.
type stockRequest struct {
	Instances int `json:"instances"`
}

// stock puts warm instances into the state.
func (s *floorServer) stock(w http.ResponseWriter, r *http.Request) error {
	var request stockRequest
	if err := httpx.Decode(r, &request, maxBody); err != nil {
		return err
	}
	ctx := r.Context()
	for _, cmd := range []state.Command{
		state.PutTemplate{Spec: api.Template{Name: templateName, Image: "none", Port: 80}.WithDefaults()},
		state.PutNode{Node: state.Node{ID: floorNode, URL: "http://127.0.0.1:7070", Address: "127.0.0.1", Capacity: 1 << 20}},
	} {
		if _, err := s.propose(ctx, cmd); err != nil {
			return err
		}
	}
	const together = 64 // so that commands share log entries
	var wg sync.WaitGroup
	errs := make(chan error, together)
	end := s.stocked.Load() + int64(request.Instances)
	for range together {
		wg.Go(func() {
			for i := s.stocked.Add(1) - 1; i < end; i = s.stocked.Add(1) - 1 {
				if err := s.make(ctx, floorInstance(i)); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	s.stocked.Store(end)
	if err := <-errs; err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *floorServer) make(ctx context.Context, id api.InstanceID) error {
	_, err := s.propose(ctx, state.CreateInstance{ID: id, Template: api.TemplateRef{Name: templateName, Revision: 1}, Node: floorNode, Host: "d-" + string(id) + ".demo.localhost"})
	if err == nil {
		_, err = s.propose(ctx, state.WarmInstance{ID: id, Address: "127.0.0.1:4000", Credentials: &api.Credentials{Username: "admin", Password: string(id)}})
	}
	return err
}

func floorInstance(i int64) api.InstanceID { return api.InstanceID(fmt.Sprintf("i-%010d", i)) }
