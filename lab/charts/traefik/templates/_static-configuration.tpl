{{- /* Traefik's static configuration, as arguments. */}}
{{- define "proxy.staticConfiguration" -}}
{{- if not .Values.global.checkNewVersion }}
- "--global.checkNewVersion=false"
{{- end }}
{{- if .Values.global.sendAnonymousUsage }}
- "--global.sendAnonymousUsage"
{{- end }}
{{- range $name, $port := .Values.ports }}
{{- if $port }}
{{- $entryPoint := printf "entryPoints.%s" $name }}
- "--{{ $entryPoint }}.address={{ $port.hostIP }}:{{ $port.port }}/{{ $port.protocol | default "TCP" | lower }}"
{{- /* A plain value or a map of values, under Traefik's own name for it. */}}
{{- range $key := list "asDefault" "allowACMEByPass" "observability" "transport" "forwardedHeaders" "proxyProtocol" }}
{{- $value := get $port $key }}
{{- if and $value (not (and (kindIs "bool" $value) (not $value))) }}
{{- include "proxy.arguments" (list (printf "%s.%s" $entryPoint $key) $value) }}
{{- end }}
{{- end }}
{{- with $port.http }}
{{- if (.tls).enabled }}
- "--{{ $entryPoint }}.http.tls=true"
{{- with .tls.options }}
- "--{{ $entryPoint }}.http.tls.options={{ . }}"
{{- end }}
{{- end }}
{{- include "proxy.arguments" (list (printf "%s.http" $entryPoint) (pick . "middlewares" "maxHeaderBytes" "sanitizePath" "encodedCharacters")) }}
{{- include "proxy.arguments" (list (printf "%s.http.redirections.entryPoint" $entryPoint) ((.redirections).entryPoint | default dict)) }}
{{- end }}
{{- end }}
{{- end }}
{{- include "proxy.arguments" (list "api" .Values.api) }}
- "--ping=true"
{{- if .Values.core.strictTLSOptions }}
- "--core.strictTLSOptions=true"
{{- end }}
{{- if .Values.metrics.addInternals }}
- "--metrics.addinternals"
{{- end }}
{{- with .Values.metrics.prometheus }}
- "--metrics.prometheus=true"
- "--metrics.prometheus.entrypoint={{ .entryPoint }}"
{{- include "proxy.arguments" (list "metrics.prometheus" (pick . "addEntryPointsLabels" "addRoutersLabels" "addServicesLabels" "buckets")) }}
{{- end }}
{{- range $name := list "kubernetesCRD" "kubernetesIngress" }}
{{- $provider := get $.Values.providers $name }}
{{- if $provider.enabled }}
{{- $prefix := printf "providers.%s" (lower $name) }}
- "--{{ $prefix }}"
{{- range $key := list "ingressClass" "labelSelector" "defaultTLSResourcesNamespace" }}
{{- with get $provider $key }}
- "--{{ $prefix }}.{{ $key }}={{ . }}"
{{- end }}
{{- end }}
{{- range $key := list "allowCrossNamespace" "allowExternalNameServices" "allowEmptyServices" "nativeLBByDefault" "safeNaming" }}
{{- if get $provider $key }}
- "--{{ $prefix }}.{{ $key }}=true"
{{- end }}
{{- end }}
{{- if $.Values.rbac.namespaced }}
- "--{{ $prefix }}.disableClusterScopeResources=true"
{{- end }}
{{- range $key := list "namespaces" "crossProviderNamespaces" }}
{{- with get $provider $key }}
- "--{{ $prefix }}.{{ $key }}={{ join "," . }}"
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- with .Values.providers.kubernetesGateway }}
{{- if .enabled }}
- "--providers.kubernetesgateway"
{{- include "proxy.arguments" (list "providers.kubernetesgateway.statusaddress" (pick .statusAddress "ip" "hostname")) }}
{{- if and .statusAddress.service.enabled $.Values.service.enabled }}
- "--providers.kubernetesgateway.statusaddress.service.name={{ .statusAddress.service.name | default (include "proxy.fullname" $) }}"
- "--providers.kubernetesgateway.statusaddress.service.namespace={{ .statusAddress.service.namespace | default (include "proxy.namespace" $) }}"
{{- end }}
{{- range $key := list "experimentalChannel" "nativeLBByDefault" }}
{{- if get $.Values.providers.kubernetesGateway $key }}
- "--providers.kubernetesgateway.{{ $key }}=true"
{{- end }}
{{- end }}
{{- include "proxy.arguments" (list "providers.kubernetesgateway" (pick . "namespaces" "labelSelector")) }}
{{- end }}
{{- end }}
{{- if .Values.providers.file.enabled }}
- "--providers.file.directory=/etc/traefik/dynamic"
- "--providers.file.watch={{ .Values.providers.file.watch }}"
{{- end }}
- "--log.level={{ .Values.log.level | upper }}"
{{- with .Values.log.format }}
- "--log.format={{ . }}"
{{- end }}
{{- if .Values.log.noColor }}
- "--log.noColor=true"
{{- end }}
{{- if .Values.accessLog.enabled }}
- "--accesslog=true"
{{- include "proxy.arguments" (list "accesslog" (pick .Values.accessLog "format" "bufferingSize" "filters" "fields")) }}
{{- end }}
{{- range .Values.additionalArguments }}
- {{ . | quote }}
{{- end }}
{{- end }}
