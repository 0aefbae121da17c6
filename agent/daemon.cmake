bunker_library(NAME bunker_agent_config SRCS config.cc DEPS bunker_base bunker_config)
