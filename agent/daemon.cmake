bunker_library(NAME bunker_agent_config SRCS config.cc DEPS bunker_base bunker_config)
bunker_library(NAME bunker_agent_image_store SRCS cache/image_store.cc
  DEPS bunker_base nlohmann_json::nlohmann_json)
