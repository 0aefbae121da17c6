# Config and init are a library, so that tests and the daemon share them.
bunker_library(NAME bunker_controller_config
  SRCS config.cc init.cc seal_keys.cc
  DEPS bunker_base bunker_config bunker_controller_engine bunker_controller_store bunker_seal
    fmt::fmt)

if(BUNKER_GRPC)
  # gRPC serves health by itself, but reflection can describe only what is linked in.
  find_path(GRPC_PROTO_DIR grpc/health/v1/health.proto PATHS /usr/share/grpc-proto REQUIRED)
  set(health_dir ${CMAKE_CURRENT_BINARY_DIR}/health)
  file(MAKE_DIRECTORY ${health_dir})
  add_custom_command(
    OUTPUT ${health_dir}/grpc/health/v1/health.pb.cc ${health_dir}/grpc/health/v1/health.pb.h
    COMMAND protobuf::protoc --cpp_out ${health_dir} -I ${GRPC_PROTO_DIR}
      ${GRPC_PROTO_DIR}/grpc/health/v1/health.proto
    DEPENDS ${GRPC_PROTO_DIR}/grpc/health/v1/health.proto)
  add_library(bunker_health_proto STATIC ${health_dir}/grpc/health/v1/health.pb.cc)
  target_link_libraries(bunker_health_proto PUBLIC protobuf::libprotobuf)
  target_include_directories(bunker_health_proto SYSTEM PUBLIC ${health_dir})

  bunker_binary(NAME bunker-controller
    SRCS main.cc server.cc listener_watchdog.cc
    DEPS bunker_controller_config bunker_controller_rest bunker_controller_grpc
      bunker_controller_link bunker_controller_metrics bunker_controller_store bunker_health_proto PkgConfig::SYSTEMD gRPC::grpc++_reflection
      CLI11::CLI11 fmt::fmt)
endif()
