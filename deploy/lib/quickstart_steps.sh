# The steps of deploy/quickstart, in the order in which it calls them. Sourced by it.
# shellcheck shell=bash

step_packages() {
  stage_begin "install packages"
  install_packages deploy/packages/build deploy/packages/run deploy/packages/image
  stage_end
}

step_build() {
  if [ -n "${BUNKER_BUILD:-}" ]; then
    [ -x "$bin/bunker-agent" ] || die "$bin/bunker-agent is missing: build it, or leave BUNKER_BUILD unset"
    return 0
  fi
  stage_begin "build (release)"
  mkdir -p build
  local log=build/release.build.log
  if ! { cmake --preset release -DBUNKER_TESTS=OFF &&
    cmake --build build/release --target bunker-controller bunker-agent bunkerctl bunker-guest; } >"$log" 2>&1; then
    grep -E 'error|FAILED' "$log" | head -n 30 >&2 || true
    tail -n 20 "$log" >&2
    die "the build failed: the whole log is in $log"
  fi
  stage_end
}

step_guest() {
  stage_begin "guest kernel and initrd"
  with_fresh_lists deploy/guest-kernel --init "$bin/bunker-guest" "$guest" || die "deploy/guest-kernel failed: see above"
  stage_end
}

step_folders() {
  # The bake's child and QEMU run as other users and pass through here; they may list nothing.
  mkdir -p "$home" "$run" "$home/log" "$home/registry" "$home/controller"
  chmod 711 "$home"
  chmod 700 "$run" "$home/log" "$home/controller"
}

step_registry() {
  stage_begin "a registry on loopback"
  local binary
  with_fresh_lists deploy/lib/registry-binary build/registry >/dev/null
  binary=$(deploy/lib/registry-binary build/registry)
  if ! process_alive "$run/registry.pid" >/dev/null; then
    port_free "$registry_port" || die "port $registry_port is taken: set BUNKER_PORT_BASE to another range"
  fi
  cat >"$home/registry/config.yml" <<YAML
version: 0.1
log:
  level: info
storage:
  filesystem:
    rootdirectory: $home/registry/data
http:
  addr: 127.0.0.1:$registry_port
YAML
  start_daemon registry "$binary" serve "$home/registry/config.yml"
  wait_daemon registry 15 curl -fsS "http://127.0.0.1:$registry_port/v2/"
  stage_end
}

step_image() {
  stage_begin "make and push the image"
  local repository=debian-python tag=v1 layout
  ref=127.0.0.1:$registry_port/$repository:$tag
  if curl -fsS -o /dev/null -H 'Accept: application/vnd.oci.image.manifest.v1+json' \
    "http://127.0.0.1:$registry_port/v2/$repository/manifests/$tag" 2>/dev/null; then
    say "   the registry has it from an earlier run"
  else
    layout=$home/layout
    rm -rf "$layout"
    deploy/image/make-debian-image "$layout" "$tag" >&2
    skopeo copy -q --insecure-policy --dest-tls-verify=false "oci:$layout:$tag" "docker://$ref" >&2
    rm -rf "$layout"
  fi
  stage_end
}

write_controller_config() {
  cat >"$home/controller/controller.toml" <<TOML
[state]
dir = "$home/controller"

[rest]
address = "127.0.0.1:$rest_port"

[grpc]
address = "127.0.0.1:$grpc_port"

[admin]
socket = "$home/controller/admin.sock"
TOML
}

step_controller() {
  stage_begin "start the controller"
  local output port
  write_controller_config
  if [ ! -s "$home/key" ]; then
    [ ! -e "$home/controller/state.db" ] ||
      die "$home holds a controller's state but no key: run deploy/quickstart reset"
    output=$("$bin/bunker-controller" init --config "$home/controller/controller.toml") ||
      die "bunker-controller init failed: see above"
    (umask 077 && printf '%s\n' "$output" | grep -oE 'sgk_[0-9A-Za-z]{43}' >"$home/key") ||
      die "bunker-controller init printed no key: $output"
  fi
  load_key
  if ! process_alive "$run/controller.pid" >/dev/null; then
    for port in "$rest_port" "$grpc_port"; do
      port_free "$port" || die "port $port is taken: set BUNKER_PORT_BASE to another range"
    done
  fi
  start_daemon controller "$bin/bunker-controller" --config "$home/controller/controller.toml"
  wait_daemon controller 30 curl -fsS "$SCAIGRID_HOST/ready"
  stage_end
}

# Several agents share the machine: each is told its part, so that nothing is counted twice.
write_agent_config() {
  local name=$1 number=$2 memory_mb disk_mb
  {
    printf '[controller]\naddress = "127.0.0.1:%s"\n\n[worker]\nname = "%s"\n' "$grpc_port" "$name"
    if [ "$agents" -gt 1 ]; then
      memory_mb=$(awk '/^MemTotal/ { print int($2 / 1024) }' /proc/meminfo)
      disk_mb=$(df --output=size -m "$home" | tail -n 1)
      printf 'cpu_millicores = %s\nmemory_mb = %s\ndisk_mb = %s\n' \
        $(($(nproc) * 1000 / agents)) $((memory_mb * 8 / 10 / agents)) $((disk_mb * 2 / 10 / agents))
    fi
    printf '\n[state]\ndir = "%s/%s"\n' "$home" "$name"
    # Users of their own too, or one agent's guests could reach another's.
    printf '\n[images]\nbake_uid = %s\n' $((64010 + number - 1))
    printf '\n[vm]\nkernel = "%s"\ninitrd = "%s/initrd"\nuid_base = %s\nuid_count = 50\n' \
      "$(guest_kernel)" "$guest" $((64100 + 50 * (number - 1)))
    printf '\n[[images.registry]]\nhost = "127.0.0.1:%s"\ninsecure_http = true\nallow_address = true\n' \
      "$registry_port"
  } >"$home/$name.toml.new"
  if ! cmp -s "$home/$name.toml.new" "$home/$name.toml"; then
    mv "$home/$name.toml.new" "$home/$name.toml"
    # A running agent has read the old file. Its VMs stay: the next one adopts them.
    if process_alive "$run/$name.pid" >/dev/null; then stop_process "$run/$name.pid"; fi
  else
    rm "$home/$name.toml.new"
  fi
}

guest_kernel() {
  if [ -e "$guest/vmlinux" ]; then echo "$guest/vmlinux"; else echo "$guest/vmlinuz"; fi
}

workers_online() { [ "$(ctl --json worker list | grep -c '"status": "online"')" -ge "$agents" ]; }

step_agents() {
  stage_begin "join and start $agents agent(s)"
  local number name token
  for number in $(seq "$agents"); do
    name=agent-$number
    mkdir -p "$home/$name"
    chmod 711 "$home/$name"
    write_agent_config "$name" "$number"
    if [ -z "$(find "$home/$name" -maxdepth 1 -name 'identity*' -print -quit)" ]; then
      token=$("$bin/bunker-controller" join-token --worker "$name" --config "$home/controller/controller.toml" |
        tail -n 1 | awk '{ print $NF }')
      printf '%s\n' "$token" | "$bin/bunker-agent" join --config "$home/$name.toml" --token - >&2 ||
        die "$name could not join: see above"
    fi
    start_daemon "$name" "$bin/bunker-agent" --config "$home/$name.toml"
  done
  wait_daemon "agent-$agents" 60 workers_online
  stage_end
}

# The name under which the image is registered: one a reference, so that a second run finds it.
image_name() {
  local last=${ref##*/}
  printf '%s-%s' "$(printf '%s' "${last%%[:@]*}" | tr 'A-Z' 'a-z' | tr -cd 'a-z0-9-')" \
    "$(printf '%s' "$ref" | sha256sum | cut -c1-6)"
}

step_fan_out() {
  stage_begin "register the image, fan it out, bake it"
  local number name record
  name=$(image_name)
  ctl group show quickstart >/dev/null 2>&1 || ctl group create quickstart --description "made by deploy/quickstart" >/dev/null
  for number in $(seq "$agents"); do
    ctl group attach quickstart --worker "agent-$number" >/dev/null
  done
  image_before=absent
  if ctl image show "$name" >/dev/null 2>&1; then
    image_before=present
    say "   $name is registered already"
  else
    ctl image register "$name" --ref "$ref" --size-mib 4096 --memory-mb 512 --display-name "Quickstart image" \
      --group quickstart >&2
  fi
  # Agents that this run did not start would hold up the fan-out for ever.
  for number in $(seq $((agents + 1)) 8); do
    ctl group detach quickstart --worker "agent-$number" >/dev/null 2>&1 || true
  done
  record=$run/stages
  (ctl --json image watch "$name" 2>/dev/null | python3 deploy/lib/stage_times.py >"$record") &
  local recorder=$!
  if [ "$image_before" = present ]; then
    ctl group attach quickstart --image "$name" >/dev/null
    ctl image warm "$name" >/dev/null
  fi
  ctl image watch "$name"
  wait "$recorder" || true
  image=$name
  stage_end
}

bunker_ended() { [ -n "$(ctl --json bunker show "$1" | json_value terminated_at)" ]; }

step_bunker() {
  stage_begin "create a bunker and wait for it"
  # One bunker of ours at a time: an earlier run's holds its share of the machine until it ended.
  local earlier
  if ctl bunker show quickstart >/dev/null 2>&1 && earlier=$(ctl --json bunker show quickstart | json_value id) &&
    [ -n "$earlier" ]; then
    ctl bunker rm "$earlier" >/dev/null || true
    wait_for 60 "it ends" bunker_ended "$earlier" || die "bunker $earlier of an earlier run does not end"
  fi
  ctl --json bunker create "$image" --name quickstart --cpu-millicores 500 >"$run/bunker.json" || die "the bunker did not come up: see above"
  bunker=$(json_value id <"$run/bunker.json")
  stage_end
  local expected own=false output
  case "$ref" in "127.0.0.1:$registry_port/debian-python:"*) own=true ;; esac
  if $own && [ -z "$command" ]; then
    expected="Python says: 338350 squares from inside Linux"
    stage_begin "run python in it"
    output=$(ctl bunker exec "$bunker" -- python3 -c \
      'import platform; print("Python says:", sum(x*x for x in range(101)), "squares from inside", platform.system(), platform.release(), "with Python", platform.python_version())') ||
      die "the command failed"
  else
    expected=
    stage_begin "run a command in it"
    output=$(ctl bunker exec "$bunker" --shell "${command:-cat /etc/os-release; uname -a}") || die "the command failed"
  fi
  stage_end
  printf '\n%s\n\n' "$output"
  case "$output" in
    "") die "the command printed nothing" ;;
    "$expected"*) ;;
    *) die "the command printed something else than \"$expected…\"" ;;
  esac
}

step_report() {
  printf 'Where the time went\n'
  stage_table
  printf '  %-44s %12s\n' "in all" "$(format_ms $(($(now_ms) - quickstart_started)))"
  if [ -s "$run/stages" ]; then
    printf '\nRegister to ready, by stage\n'
    cat "$run/stages"
  fi
  printf '\nCreate to running\n'
  python3 - "$run/bunker.json" <<'PY'
import json, sys
bunker = json.load(open(sys.argv[1]))
for part in ("queue", "place", "fetch", "boot", "agent"):
    spent = (bunker.get("timings") or {}).get(part + "_ms")
    if spent is not None:
        print(f"  {part:<44} {spent / 1000:10.3f} s")
print(f"  guests run on {bunker.get('isolation')}")
PY
  if $once; then return 0; fi
  cat <<TXT

All of it keeps running. To go on:
  eval "\$(deploy/quickstart env)"
  bunkerctl image list
  bunkerctl bunker exec quickstart --shell 'ls /'
  bunkerctl bunker create $image --name mine
  deploy/quickstart stop
TXT
}
