{{- /* A pod that is full takes itself out of the balancer only where there may be another one. */}}
{{- define "riva.limitInReadiness" -}}
{{- if and (include "riva.handsOver" .) .Values.streams.readinessAtLimit }}true{{ end -}}
{{- end -}}

{{- /* A full pod hands a new stream over where there may be another one. */}}
{{- define "riva.handsOver" -}}
{{- if and .Values.streams.limit (gt (int .Values.autoscaling.maxReplicas) 1) }}true{{ end -}}
{{- end -}}

{{- define "riva.clusterName" -}}
{{ include "riva.fullname" . }}.{{ .Release.Namespace }}.svc.{{ .Values.streams.clusterDomain }}
{{- end -}}

{{- /*
The limit of a pod. One thread, so that the question whether there is room and the stream that takes it are one step.
Nothing here may end a stream: no timeout but those that a dead peer meets.
*/}}
{{- define "riva.streamLimit" -}}
{{- $limit := int .Values.streams.limit -}}
global
    nbthread 1
    maxconn {{ add 1000 (mul 4 $limit) }}
    log stdout format raw local0 notice
    # It is stopped after Riva, when no stream of its own is left; those that it handed over may still run.
    hard-stop-after {{ .Values.longestStreamSeconds }}s

defaults
    mode http
    timeout connect 2s
    timeout queue 100ms
    timeout http-request 10s
    # A stream may be silent for as long as its caller is.
    timeout client 24h
    timeout server 24h
    timeout http-keep-alive 24h
    option clitcpka
    option srvtcpka
    retries 0

frontend streams
    bind :{{ .Values.streams.port }} proto h2
    {{- with .Values.streams.podHeader }}
    {{- /* The pod that a stream was handed over to has said so already. */}}
    http-response set-header {{ . }} "%[env(POD_NAME)]" unless { res.hdr({{ . }}) -m found }
    {{- end }}
    # What is asked beside speech takes no place.
    use_backend asides if { path_beg /grpc.health.v1.Health/ /grpc.reflection. }
    acl full srv_conn(speech/riva) ge {{ $limit }}
    {{- if include "riva.handsOver" . }}
    # Chance sent a stream here that another pod may have room for. Once: a stream that was handed over is served or refused.
    use_backend another if full { nbsrv(another) gt 0 } !{ req.hdr(x-handed-over) -m found }
    {{- end }}
    use_backend full if full
    default_backend speech

backend speech
    server riva 127.0.0.1:{{ .Values.ports.grpc }} proto h2 maxconn {{ $limit }}

backend asides
    server riva 127.0.0.1:{{ .Values.ports.grpc }} proto h2

{{- if include "riva.handsOver" . }}
# Some pod that is ready, as the Service finds it: a connection for each stream, or all would go to the same one.
backend another
    http-request set-header x-handed-over 1
    http-reuse never
    server pod {{ include "riva.clusterName" . }}:{{ .Values.ports.grpc }} proto h2 init-addr none resolvers cluster resolve-prefer ipv4
    # Nobody is ready: a refusal as well.
    http-after-response set-header content-type application/grpc if { status 503 }
    http-after-response set-header grpc-status 8 if { status 503 }
    http-after-response set-status 200 if { status 503 }
{{- end }}

# RESOURCE_EXHAUSTED without a body, after a moment: an answer faster than the question's headers are done counts as a
# failure with Traefik's passive health check, which would then take the pod out for all.
backend full
    http-request wait-for-body time 50ms
    http-request return status 200
    http-error status 408
    http-after-response set-status 200
    http-after-response set-header content-type application/grpc
    http-after-response set-header grpc-status 8
    http-after-response set-header grpc-message "this pod carries as many streams as it may"

frontend limit-metrics
    bind :{{ .Values.streams.metricsPort }}
    monitor-uri /ready
    {{- if include "riva.limitInReadiness" . }}
    # Full, and another pod has room: no new streams, please. With none that has room it stays, to refuse and to count.
    monitor fail if { srv_conn(speech/riva) ge {{ $limit }} } { nbsrv(others) gt 0 }
    http-request return status 503 if { path /room } { srv_conn(speech/riva) ge {{ $limit }} }
    {{- end }}
    http-request return status 200 if { path /room }
    http-request use-service prometheus-exporter if { path /metrics }
    http-request return status 404
{{- if include "riva.handsOver" . }}

resolvers cluster
    parse-resolv-conf
    accepted_payload_size 8192
    hold valid 10s
{{- end }}
{{- if include "riva.limitInReadiness" . }}

# Asked through the Service: its rules know a new pod within a second, names of pods half a minute later, where DNS keeps answers
# that long. Each question meets some ready pod; so there are several, each with an answer of the last half second.
backend others
    option httpchk GET /room
    # The pod itself is among them, and known to be full within half a second: sooner than readiness takes to fall.
    default-server check inter 500ms fall 1 rise 1 init-addr none resolvers cluster resolve-prefer ipv4 resolve-opts allow-dup-ip
    server-template other {{ min (max (int .Values.autoscaling.maxReplicas) 8) 32 }} {{ include "riva.clusterName" . }}:{{ .Values.streams.metricsPort }}
{{- end }}
{{- end -}}

{{- /* Starts before the server and, as kubelets stop such containers, ends after it: it outlives the server's streams. */}}
{{- define "riva.streamLimitContainer" -}}
- name: stream-limit
  image: "{{ .Values.streams.image.repository }}:{{ .Values.streams.image.tag }}"
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  restartPolicy: Always
  command:
    - haproxy
    - -db
    - -f
    - /etc/stream-limit/haproxy.cfg
  env:
    - name: POD_NAME
      valueFrom:
        fieldRef:
          fieldPath: metadata.name
  ports:
    - name: limited-grpc
      containerPort: {{ .Values.streams.port }}
    - name: limit-metrics
      containerPort: {{ .Values.streams.metricsPort }}
  readinessProbe:
    httpGet:
      path: /ready
      port: {{ .Values.streams.metricsPort }}
    periodSeconds: 1
    timeoutSeconds: 2
    failureThreshold: 2
  livenessProbe:
    httpGet:
      path: /metrics?scope=global
      port: {{ .Values.streams.metricsPort }}
    periodSeconds: 10
    timeoutSeconds: 5
    failureThreshold: 6
  securityContext:
    allowPrivilegeEscalation: false
    readOnlyRootFilesystem: true
    runAsNonRoot: true
    runAsUser: 99
    runAsGroup: 99
    capabilities:
      drop:
        - ALL
  {{- with .Values.streams.resources }}
  resources:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  volumeMounts:
    - name: stream-limit
      mountPath: /etc/stream-limit
      readOnly: true
{{- end -}}
