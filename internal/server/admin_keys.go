package server

func (s *Server) registerKeyAdmin(route func(name, method string, collection bool, action string, h adminHandler)) {
}
