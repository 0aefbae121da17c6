# Config and init are a library, so that tests and the daemon share them.
bunker_library(NAME bunker_controller_config
  SRCS config.cc init.cc
  DEPS bunker_base bunker_config bunker_controller_store fmt::fmt)

if(BUNKER_GRPC)
  bunker_binary(NAME bunker-controller
    SRCS main.cc server.cc listener_watchdog.cc
    DEPS bunker_controller_config bunker_controller_rest bunker_controller_grpc
      bunker_controller_link bunker_controller_store PkgConfig::SYSTEMD gRPC::grpc++_reflection
      CLI11::CLI11 fmt::fmt)
endif()
