bunker_library(NAME bunker_agent_config SRCS config.cc
  DEPS bunker_base bunker_config bunker_agent_net bunker_agent_scan)
bunker_library(NAME bunker_agent_pull_config SRCS pull_config.cc
  DEPS bunker_agent_config bunker_agent_pull)

if(BUNKER_GRPC)
  bunker_binary(NAME bunker-agent SRCS main.cc agent.cc host_facts.cc
    DEPS bunker_agent_commands bunker_agent_pull_config bunker_agent_reconcile
         bunker_agent_exec_tunnel bunker_agent_link
         bunker_http CLI11::CLI11 PkgConfig::SYSTEMD)
endif()
